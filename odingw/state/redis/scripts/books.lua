-- The books of one pool, with which every script begins. Names and order are those of odingw/grid.
--
-- KEYS[1]: the pool's `main`. Further ones are the `main` of other pools in the same slot. Every other
--          key is of the pool's hash tag: the tag, the epoch, and a name.
-- ARGV[1]: the request: epoch, time (false: Redis's), gateway, and what the script asks for.
-- ARGV[2]: the settings.
-- All values in ARGV, in answers and in rows are MessagePack. A script counts in memory, and writes what
-- it has counted at its end (`grid.answer`). Functions are in one table: each call makes them anew, and
-- in Lua 5.1 that takes the longer the more local names they use.

local call, pack = redis.call, cmsgpack.pack
local request, settings = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local MAIN, epoch, now, gateway = KEYS[1], request[1], request[2], request[3]
local TAG = string.sub(MAIN, 1, -5)

if not now then
  local time = call('TIME')
  now = time[1] + time[2] / 1000000
end

local main = call('HMGET', MAIN, 'epoch', 'mean')
if main[1] ~= epoch then return redis.error_reply('LOST epoch') end

-- Key names, made when they are first used.
local K = setmetatable({}, {__index = function(names, name)
  local key = TAG .. epoch .. ':' .. name
  names[name] = key
  return key
end})

local SWEEP = 500         -- records that one call looks at beside its work
local GROWTH_TIME = 45    -- as in odingw.grid.placement
local CANDIDATES = 8      -- servers of which the exact load is compared

local grid = {mean = tonumber(main[2] or nil) or 2, skipped = {}}
if not (grid.mean >= 1 and grid.mean < 1e6) then grid.mean = 2 end

function grid.number(text)
  local value = tonumber(text or nil)
  return value and math.abs(value) < 2 ^ 53 and value or 0
end

-- A row. One that cannot be read is taken out, and its key told. Without some nothing could be decided:
-- then, as where a whole key is missing, the script ends with LOST.
function grid.read(key, field, length)
  local raw = call('HGET', key, field)
  if not raw then return nil end
  local good, row = pcall(cmsgpack.unpack, raw)
  if good and type(row) == 'table' and #row == length then return row end
  grid.skip(key, field)
  call('HDEL', key, field)
end

function grid.skip(key, field) grid.skipped[#grid.skipped + 1] = key .. ' ' .. field end

function grid.add(key, field, change)
  if change ~= 0 and call('HINCRBY', key, field, change) == 0 then call('HDEL', key, field) end
end

-- Counters: reservations and growths are numbered without gaps, so that the oldest is known.
local COUNTERS = {'first', 'last', 'grown', 'growing', 'task', 'fact', 'born', 'load_seen',
  'clients_seen', 'demo_p', 'demo_r', 'demo_n', 'ticked'}
local counters, counted = {}, false
local counts = grid.read(K.counts, 'row', #COUNTERS)
for index, name in ipairs(COUNTERS) do
  local number = counts and counts[index]
  if type(number) ~= 'number' or not (math.abs(number) < 2 ^ 53) then error('LOST counts') end
  counters[name] = number
end

function grid.set(name, value)
  counters[name], counted = value, true
  return value
end

function grid.next_number(name) return grid.set(name, counters[name] + 1) end

-- Servers: `servers` has all about them, `targets` what a Connect needs of it, and `tallies` what is
-- counted (n: reservations, g: growth foreseen, r: rooms, p: peers, t: tasks).

local FIELDS = {'kid', 'state', 'drained', 'unheard', 'estimate', 'cost', 'born', 'via', 'version', 'load',
  'load_seen', 'clients_seen', 'clients', 'first', 'seen', 'since'}
local LIVE, DISABLED, REMOVED = 0, 1, 2
local servers, changed, tallied = {}, {}, {}

function grid.server(address)
  local found = servers[address]
  if found == nil then
    local row = grid.read(K.targets, address, 6)
    found = row and {address = address, kid = row[1], state = row[2], open = row[3],
      estimate = row[4], cost = row[5], born = row[6], tallies = {}} or false
    servers[address] = found
  end
  return found
end

-- Read all about a server, which is going to change.
function grid.touch(found)
  if not found.via then
    local row = grid.read(K.servers, found.address, #FIELDS)
    if not row then error('LOST servers ' .. found.address) end
    for index, name in ipairs(FIELDS) do found[name] = row[index] end
  end
  changed[found] = true
  return found
end

function grid.tally(found, kind, change)
  found.tallies[kind] = (found.tallies[kind] or 0) + change
  tallied[found] = true
end

function grid.tallies(found, ...)
  local fields = {}
  for index, kind in ipairs({...}) do fields[index] = kind .. found.address end
  local counts = call('HMGET', K.tallies, unpack(fields))
  for index, kind in ipairs({...}) do
    counts[index] = grid.number(counts[index]) + (found.tallies[kind] or 0)
  end
  return unpack(counts)
end

function grid.expected_load(found)
  local reserved, foreseen = grid.tallies(found, 'n', 'g')
  return found.estimate + (reserved + foreseen + 9 * grid.mean) * found.cost
end

function grid.list_open(found)
  if found.open then
    call('ZADD', K.open, grid.expected_load(found), found.address)
  else
    call('ZREM', K.open, found.address)
  end
end

-- Usage: `usage` and `demo` by customer (p: peers, r: reservations, n: rooms), and of the rooms that a
-- server reports `uses:SERVER`, so that disabling it takes one step for each customer.
local used, uses = {}, {}

function grid.book(books, customer)
  local found = books[customer]
  if not found then
    found = {p = 0, r = 0, n = 0}
    books[customer] = found
  end
  return found
end

function grid.is_demo(customer) return string.sub(customer, 1, 5) == 'demo_' end

function grid.count(customer, peers, reserved, rooms)
  local found = grid.book(used, customer)
  found.p, found.r, found.n = found.p + peers, found.r + reserved, found.n + rooms
  if grid.is_demo(customer) then
    grid.set('demo_p', counters.demo_p + peers)
    grid.set('demo_r', counters.demo_r + reserved)
    grid.set('demo_n', counters.demo_n + rooms)
  end
end

function grid.count_reported(found, customer, peers, rooms)
  if not uses[found] then uses[found] = {} end
  local of_server = grid.book(uses[found], customer)
  of_server.p, of_server.n = of_server.p + peers, of_server.n + rooms
  grid.tally(found, 'p', peers)
  grid.tally(found, 'r', rooms)
  if found.state == LIVE then grid.count(customer, peers, 0, rooms) end
end

-- Bases: "REPORTED ROOMS SERVER". Its rooms are the one of its own name, and those in `names`.

function grid.base_of(room)
  local colon = string.find(room, ':', 1, true)
  local slash = colon + string.sub(room, 1, colon - 1) + 1
  local from = string.find(room, '{', slash + 1, true)
  local to = from and string.find(room, '}', from, true)
  if not to then return room end
  return string.sub(room, 1, slash) .. string.sub(room, from, to - 1)
end

function grid.base_at(id)
  local value = call('HGET', K.bases, id)
  if not value then return nil end
  local reported, rooms, address = string.match(value, '^([01]) (%d+) (.+)$')
  if not address then error('LOST bases ' .. id) end
  local found = grid.server(address)
  if not found then error('LOST targets ' .. address) end
  return {id = id, server = found, reported = reported == '1', rooms = tonumber(rooms)}
end

function grid.save(base)
  call('HSET', K.bases, base.id,
    (base.reported and '1 ' or '0 ') .. base.rooms .. ' ' .. base.server.address)
end

-- A room: customer, peers (-1: not reported), when it was placed, reservations; and of the growth that is
-- foreseen its number, the places, and joins.

function grid.room_at(found, room) return grid.read(K['rooms:' .. found.address], room, 7) end

function grid.save_room(found, room, row)
  call('HSET', K['rooms:' .. found.address], room, pack(row))
end

function grid.add_room(base, room, customer)
  local found = base.server
  if not found.is_whole and call('HEXISTS', K['rooms:' .. found.address], '') == 0 then
    error('LOST rooms')
  end
  found.is_whole = true
  base.rooms = base.rooms + 1
  grid.save(base)
  if room ~= base.id then call('ZADD', K.names, 0, base.id .. '\0' .. room) end
  grid.count(customer, 0, 0, 1)
  return {customer, -1, now, 0, 0, 0, 0}
end

function grid.drop_room(base, room, row, grows)
  grid.count(row[1], 0, 0, -1)
  -- Its growth ends in its time all the same.
  if grid.is_growing(row) then
    call('HSET', K.growth, row[5], pack({row[3] + GROWTH_TIME, '', grows.address, grows.born, row[6], row[7]}))
  end
  call('HDEL', K['rooms:' .. base.server.address], room)
  if room ~= base.id then call('ZREM', K.names, base.id .. '\0' .. room) end
  base.rooms = base.rooms - 1
end

function grid.save_or_forget(base, room, row)
  if row[2] >= 0 or row[4] > 0 then return grid.save_room(base.server, room, row) end
  grid.drop_room(base, room, row, base.server)
  if base.rooms > 0 then grid.save(base) else call('HDEL', K.bases, base.id) end
end

function grid.unreport(base, row)
  grid.count_reported(base.server, row[1], -row[2], -1)
  row[2] = -1
  grid.count(row[1], 0, 0, 1)
end

-- Reservations: room, user, customer, when it ends, when it was made; by number in `places`, and by
-- user in `places:ROOM`.

function grid.end_reservation(number, place, found, row)
  call('HDEL', K.places, number)
  call('ZREM', K['places:' .. place[1]], place[2])
  grid.count(place[3], 0, -1, 0)
  row[4] = row[4] - 1
  grid.tally(found, 'n', -1)
end

function grid.end_oldest(found, room, row, most)
  if most <= 0 then return end
  local numbers = call('ZRANGE', K['places:' .. room], 0, most - 1, 'WITHSCORES')
  for index = 2, #numbers, 2 do
    local place = grid.read(K.places, numbers[index], 5)
    if place then grid.end_reservation(numbers[index], place, found, row) end
  end
end

function grid.expire()
  local number, last = counters.first, math.min(counters.last, counters.first + SWEEP - 1)
  while number <= last do
    local place = grid.read(K.places, number, 5)
    if place then
      if place[4] > now then break end
      local base = grid.base_at(grid.base_of(place[1]))
      local row = base and grid.room_at(base.server, place[1])
      if not row then error('LOST rooms') end
      grid.end_reservation(number, place, base.server, row)
      grid.save_or_forget(base, place[1], row)
    end
    number = number + 1
  end
  if number ~= counters.first then grid.set('first', number) end
end

-- The reservation that a client has in a room, by its number.
function grid.held(room, row, user)
  local number = row and row[4] > 0 and call('ZSCORE', K['places:' .. room], user)
  return number, number and grid.read(K.places, number, 5)
end

-- Reserve a place, or renew the one that is held.
function grid.reserve(found, room, row, user, customer, ends, made, before, held)
  local number = grid.next_number('last')
  if held then
    call('HDEL', K.places, before)
    customer, made = held[3], held[5]
  else
    grid.count(customer, 0, 1, 0)
    row[4] = row[4] + 1
    grid.tally(found, 'n', 1)
    grid.save_room(found, room, row)
  end
  call('HSET', K.places, number, pack({room, user, customer, ends, made}))
  call('ZADD', K['places:' .. room], number, user)
end

-- Growth: when it ends, room; of a room that is gone server, its `born`, places foreseen and joins.

function grid.foreseen(address, born, change)
  local found = grid.server(address)
  if found and found.born == born then grid.tally(found, 'g', change) end
end

function grid.is_growing(row) return row[5] > counters.grown end

function grid.sweep_growth()
  local number, last = counters.grown, math.min(counters.growing, counters.grown + SWEEP)
  while number < last do
    local growth = grid.read(K.growth, number + 1, 6)
    if growth and growth[1] > now then break end
    local base = growth and growth[2] ~= '' and grid.base_at(grid.base_of(growth[2]))
    local row = base and grid.room_at(base.server, growth[2])
    if row and row[5] == number + 1 then
      growth[3], growth[4], growth[5], growth[6] = base.server.address, base.server.born, row[6], row[7]
      row[5], row[6], row[7] = 0, 0, 0
      grid.save_room(base.server, growth[2], row)
    end
    if growth then
      grid.foreseen(growth[3], growth[4], -growth[5])
      grid.mean = grid.mean + 0.02 * (growth[6] - grid.mean)
      call('HDEL', K.growth, number + 1)
    end
    number = number + 1
  end
  if number ~= counters.grown then
    grid.set('grown', number)
    call('HSET', MAIN, 'mean', grid.mean)
  end
end

-- Facts: what operators and backends have said, each with the number of the change: bans ("b"), drains
-- ("d") and the keys that servers were given ("g"). Gateways read what is new by its number.

function grid.fact(key)
  local raw = call('HGET', K.facts, key)
  local good, row = pcall(cmsgpack.unpack, raw or '')
  if good and type(row) == 'table' and type(row[1]) == 'number' then return row end
  if raw then
    grid.skip(K.facts, key)
    call('HDEL', K.facts, key)
  end
end

-- Bases on servers

-- Nothing is placed or sent while gateways still write what Redis has lost.
function grid.may_place()
  if call('HEXISTS', K.bases, '') == 0 then error('LOST bases') end
  return call('ZCOUNT', K.awaited, now, '+inf') == 0
end

function grid.place(id, found)
  if call('ZCARD', K.about) > 1 then grid.bring_tasks(id, found.address) end
  return {id = id, server = found, reported = false, rooms = 0}
end

-- What is made when it is first used: to make a function takes as long as to call it.

setmetatable(grid, {__index = function(_, name)
  if rawget(grid, 'move') then return nil end

  function grid.rooms_of(base)
    local rooms = {}
    if call('HEXISTS', K['rooms:' .. base.server.address], base.id) == 1 then rooms[1] = base.id end
    local start = base.id .. '\0'
    for _, name in ipairs(call('ZRANGEBYLEX', K.names, '[' .. start, '(' .. base.id .. '\1')) do
      rooms[#rooms + 1] = string.sub(name, #start + 1)
    end
    return rooms
  end

  function grid.move(base, found)
    local old, taken = base.server, false
    local rooms = grid.rooms_of(base)
    grid.bring_tasks(base.id, found.address)
    for _, room in ipairs(rooms) do
      local row = grid.room_at(old, room)
      if row and grid.is_growing(row) then
        grid.tally(old, 'g', -row[6])
        grid.tally(found, 'g', row[6])
      end
      if row and row[2] >= 0 then
        taken = true
        grid.unreport(base, row)
      end
      if row and row[4] > 0 then
        grid.tally(old, 'n', -row[4])
        grid.tally(found, 'n', row[4])
        call('HDEL', K['rooms:' .. old.address], room)
        grid.save_room(found, room, row)
      elseif row then
        grid.drop_room(base, room, row, found)
      end
    end
    -- Its gateway has to look what is left.
    if taken then call('HSET', K['rooms:' .. old.address], '', 'moved') end
    base.server, base.reported = found, false
    if base.rooms > 0 then grid.save(base) end
  end

  -- Disable or enable a server; only live servers' rooms count as usage.
  function grid.disable(found, state)
    local fields = call('HGETALL', K['uses:' .. found.address])
    for index = 1, #fields, 2 do
      local kind, customer = string.sub(fields[index], 1, 1), string.sub(fields[index], 2)
      local change = grid.number(fields[index + 1]) * (state == LIVE and 1 or -1)
      if kind == 'p' then grid.count(customer, change, 0, 0) end
      if kind == 'n' then grid.count(customer, 0, 0, change) end
    end
    grid.touch(found).state = state
    if state ~= LIVE then found.since = -1 end
  end

  function grid.put_fact(key, row)
    call('HSET', K.facts, key, pack(row))
    call('ZADD', K.facts_at, row[1], key)
    call('ZREM', K.ends, key)
    grid.set('fact', math.max(counters.fact, row[1]))
    -- It is remembered for an hour that something no longer holds.
    if not row[2] then call('ZADD', K.ends, now + 3600, key) end
    if row[2] and string.sub(key, 1, 1) == 'b' then
      call('ZADD', K.ends, row[2], key)
      grid.add(K.bans_of, row[3], 1)
    end
    return {key, row}
  end

  function grid.say(key, ...) return grid.put_fact(key, {counters.fact + 1, ...}) end

  function grid.unsay(key)
    call('HDEL', K.facts, key)
    call('ZREM', K.facts_at, key)
    call('ZREM', K.ends, key)
  end

  function grid.sweep_bans()
    for _, key in ipairs(call('ZRANGEBYSCORE', K.ends, '(-inf', now, 'LIMIT', 0, SWEEP)) do
      local ban = grid.fact(key)
      if ban and ban[2] and ban[3] then grid.add(K.bans_of, ban[3], -1) end
      grid.unsay(key)
    end
  end

  -- Tasks: server, base, customer, bytes, times returned, 1 in flight, body. A task's name begins with
  -- its number in 16 digits. `queue` and `about` hold "SERVER\0TASK" and "BASE\0TASK", in that order.

  function grid.tasks_in(key, whose)
    local tasks, start = {}, whose .. '\0'
    for _, member in ipairs(call('ZRANGEBYLEX', key, '[' .. start, '(' .. whose .. '\1')) do
      tasks[#tasks + 1] = string.sub(member, #start + 1)
    end
    return tasks
  end

  function grid.task(name) return grid.read(K.tasks, name, 7) end

  function grid.owe(task, row, sign)
    grid.add(K.owes, 'n' .. row[1] .. '\0' .. row[3], sign)
    grid.add(K.owes, 'b' .. row[1] .. '\0' .. row[3], sign * row[4])
    local member, found = row[1] .. '\0' .. task, grid.server(row[1])
    if sign > 0 then call('ZADD', K.queue, 0, member) else call('ZREM', K.queue, member) end
    if found then grid.tally(found, 't', sign) end
  end

  function grid.add_task(task, row)
    call('HSET', K.tasks, task, pack(row))
    call('ZADD', K.about, 0, row[2] .. '\0' .. task)
    grid.owe(task, row, 1)
  end

  function grid.drop_task(task, row)
    call('HDEL', K.tasks, task)
    call('ZREM', K.about, row[2] .. '\0' .. task)
    grid.owe(task, row, -1)
  end

  -- Where the tasks of a base have to wait: with it or, if it is gone, where the newest of them is, in
  -- flight or not. If they were at several servers, one could overtake another.
  function grid.home_of(id)
    local base = grid.base_at(id)
    if base and base.server.state ~= REMOVED then return base.server.address end
    local tasks = grid.tasks_in(K.about, id)
    local newest = #tasks > 0 and grid.task(tasks[#tasks])
    return newest and newest[1]
  end

  -- Let the tasks of a base wait at a server; those in flight follow when they come back.
  function grid.bring_tasks(id, home)
    for _, task in ipairs(grid.tasks_in(K.about, id)) do
      local row = grid.task(task)
      if row and row[6] == 0 and row[1] ~= home then
        grid.owe(task, row, -1)
        row[1] = home
        call('HSET', K.tasks, task, pack(row))
        grid.owe(task, row, 1)
      end
    end
  end

  return rawget(grid, name)
end})

-- Write what has changed, and return an answer.
function grid.answer(...)
  local function write(key, books)
    for customer, counts in pairs(books) do
      for kind, change in pairs(counts) do grid.add(key, kind .. customer, change) end
    end
  end
  for found in pairs(changed) do
    local row = {}
    found.open = found.state == LIVE and not found.drained and not found.unheard
    for index, name in ipairs(FIELDS) do row[index] = found[name] end
    call('HSET', K.servers, found.address, pack(row))
    call('HSET', K.targets, found.address,
      pack({found.kid, found.state, found.open, found.estimate, found.cost, found.born}))
    grid.list_open(found)
  end
  for found in pairs(tallied) do
    local tallies = found.tallies
    local coming = (tallies.n or 0) + (tallies.g or 0)
    if coming ~= 0 and found.open and not changed[found] then
      call('ZINCRBY', K.open, coming * found.cost, found.address)
    end
    for kind, change in pairs(tallies) do grid.add(K.tallies, kind .. found.address, change) end
  end
  for found, books in pairs(uses) do write(K['uses:' .. found.address], books) end
  for customer, counts in pairs(used) do
    write(grid.is_demo(customer) and K.demo or K.usage, {[customer] = counts})
  end
  for index, name in ipairs(counted and COUNTERS or {}) do counts[index] = counters[name] end
  if counted then call('HSET', K.counts, 'row', pack(counts)) end
  return pack({grid.skipped, ...})
end
