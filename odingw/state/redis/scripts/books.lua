-- The books of one pool, with which every script begins. Names and order are those of odingw/grid.
--
-- KEYS[1]: the pool's `meta`. Further ones are the `meta` of other pools in the same slot. Every other
--          key is of the pool's hash tag: the tag, the epoch, and a name.
-- ARGV[1]: the request: epoch, time (false: Redis's), gateway, and what the script asks for.
-- ARGV[2]: the settings.
-- All values in ARGV, in answers and in rows are MessagePack. A script works on tables in memory and
-- writes what it changed at its end (`answer`).

local call, pack = redis.call, cmsgpack.pack
local request, settings = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local META, epoch, now, gateway = KEYS[1], request[1], request[2], request[3]
local TAG = string.sub(META, 1, -5)
local lifetime, queued_tasks, bans_per_customer = settings[1], settings[2], settings[3]
local disable_timeout, remove_timeout, unheard_timeout = settings[4], settings[5], settings[6]
local tick_interval, lease, keys_of_others = settings[7], settings[8], settings[9]

local SWEEP = 500         -- records that one call looks at beside its work
local CANDIDATES = 16     -- servers of which the exact load is compared

if not now then
  local time = call('TIME')
  now = time[1] + time[2] / 1000000
end

local meta = call('HMGET', META, 'epoch', 'mean')
if meta[1] ~= epoch then return redis.error_reply('LOST epoch') end
local mean = tonumber(meta[2] or nil) or 2
if not (mean >= 1 and mean < 1e6) then mean = 2 end

-- Key names, made when they are first used.
local K = setmetatable({}, {__index = function(names, name)
  local key = TAG .. epoch .. ':' .. name
  names[name] = key
  return key
end})

-- Rows that cannot be read are taken out, and their keys told. Without some of them nothing could be
-- decided: then, as where a whole key is missing, the script ends with LOST.
local skipped = {}
local function skip(key, field) skipped[#skipped + 1] = key .. ' ' .. field end

-- The number in a text, if it is one that gateways may have written; else 0.
local function is_number(value) return value == value and math.abs(value) < 2 ^ 53 end

local function number_in(text)
  local value = tonumber(text or nil)
  return value and is_number(value) and value or 0
end

local ROOM = {'string', 'number', 'number', 'number', 'number'}
local PLACE = {'string', 'string', 'string', 'number', 'number'}
local GROWTH = {'string', 'number', 'number', 'number', 'number'}
local FACT = {'number'}
local TASK = {'string', 'string', 'string', 'number', 'number', 'number', 'string'}
local FLIGHT = {'string', 'string', 'table'}

local function read(key, field, shape)
  local raw = call('HGET', key, field)
  if not raw then return nil end
  local good, row = pcall(cmsgpack.unpack, raw)
  good = good and type(row) == 'table'
  for index = 1, good and #shape or 0 do
    local value = row[index]
    if type(value) ~= shape[index] or (type(value) == 'number' and not is_number(value)) then
      good = false
    end
  end
  if good then return row end
  skip(key, field)
  call('HDEL', key, field)
end

local function add(key, field, change)
  if change == 0 then return end
  local value = redis.pcall('HINCRBY', key, field, change)
  if type(value) == 'table' then
    skip(key, field)
    value = math.max(0, change)
    call('HSET', key, field, value)
  end
  if value == 0 then call('HDEL', key, field) end
end

-- Counters: reservations and growths are numbered without gaps, so that the oldest is known.
local COUNTERS = {'first', 'last', 'grown', 'growing', 'task', 'fact', 'born', 'load_seen',
  'clients_seen', 'demo_p', 'demo_r', 'demo_n', 'ticked'}
local counters, counted = {}, {}
for index, value in ipairs(call('HMGET', K.counts, unpack(COUNTERS))) do
  local value_in = tonumber(value or 0)
  if not value_in or not is_number(value_in) or (index == 1 and not value) then error('LOST counts') end
  counters[COUNTERS[index]] = value_in
end

local function set(name, value)
  counters[name], counted[name] = value, true
  return value
end

local function next_number(name) return set(name, counters[name] + 1) end

-- Servers

local FIELDS = {'kid', 'born', 'disabled', 'drained', 'unheard', 'removed', 'estimate', 'cost', 'n',
  'g', 'rooms', 'peers', 'tasks', 'via', 'version', 'load', 'load_seen', 'clients_seen', 'clients',
  'first', 'seen', 'since'}
local SERVER = {'string', 'number', 'boolean', 'boolean', 'boolean', 'boolean', 'number', 'number',
  'number', 'number', 'number', 'number', 'number', 'string', 'string', 'number', 'number', 'number',
  'number', 'number', 'number', 'number'}
local servers, dirty = {}, {}

local function server(address)
  local found = servers[address]
  if found == nil then
    local row = read(K.servers, address, SERVER)
    if #skipped > 0 and not row then error('LOST servers ' .. address) end
    found = row and {address = address} or false
    for index, name in ipairs(row and FIELDS or {}) do found[name] = row[index] end
    servers[address] = found
  end
  return found
end

local function touch(found)
  dirty[found] = true
  return found
end

local function is_open(found)
  return not (found.disabled or found.drained or found.unheard or found.removed)
end

local function expected_load(found)
  return found.estimate + (found.n + found.g + 9 * mean) * found.cost
end

local function list_open(found)
  if is_open(found) then
    call('ZADD', K.open, expected_load(found), found.address)
  else
    call('ZREM', K.open, found.address)
  end
end

-- Usage: `usage` and `demo` by customer (p: peers, r: reservations, n: rooms), and of the rooms that a
-- server reports `uses:SERVER`, so that disabling it takes one step for each customer.
local used, uses = {}, {}

local function book(books, customer)
  local found = books[customer]
  if not found then
    found = {p = 0, r = 0, n = 0}
    books[customer] = found
  end
  return found
end

local function is_demo(customer) return string.sub(customer, 1, 5) == 'demo_' end

local function count(customer, peers, reserved, rooms)
  local found = book(used, customer)
  found.p, found.r, found.n = found.p + peers, found.r + reserved, found.n + rooms
  if is_demo(customer) then
    set('demo_p', counters.demo_p + peers)
    set('demo_r', counters.demo_r + reserved)
    set('demo_n', counters.demo_n + rooms)
  end
end

local function count_reported(found, customer, peers, rooms)
  if not uses[found] then uses[found] = {} end
  local of_server = book(uses[found], customer)
  of_server.p, of_server.n = of_server.p + peers, of_server.n + rooms
  found.peers, found.rooms = found.peers + peers, found.rooms + rooms
  touch(found)
  if not found.disabled then count(customer, peers, 0, rooms) end
end

-- Bases: "REPORTED ROOMS SERVER". Its rooms are the one of its own name, and those in `names`.

local function base_of(room)
  local colon = string.find(room, ':', 1, true)
  local slash = colon + string.sub(room, 1, colon - 1) + 1
  local from = string.find(room, '{', slash + 1, true)
  local to = from and string.find(room, '}', from, true)
  if not to then return room end
  return string.sub(room, 1, slash) .. string.sub(room, from, to - 1)
end

local function base_at(id)
  local value = call('HGET', K.bases, id)
  if not value then return nil end
  local reported, rooms, address = string.match(value, '^([01]) (%d+) (.+)$')
  local found = address and server(address)
  if not address then error('LOST bases ' .. id) end
  if not found then error('LOST servers') end
  return {id = id, server = found, reported = reported == '1', rooms = tonumber(rooms)}
end

local function save(base)
  call('HSET', K.bases, base.id,
    (base.reported and '1 ' or '0 ') .. base.rooms .. ' ' .. base.server.address)
end

local function room_at(found, room) return read(K['rooms:' .. found.address], room, ROOM) end

local function save_room(found, room, row) call('HSET', K['rooms:' .. found.address], room, pack(row)) end

local function rooms_of(base)
  local rooms = {}
  if call('HEXISTS', K['rooms:' .. base.server.address], base.id) == 1 then rooms[1] = base.id end
  local start = base.id .. '\0'
  for _, name in ipairs(call('ZRANGEBYLEX', K.names, '[' .. start, '(' .. base.id .. '\1')) do
    rooms[#rooms + 1] = string.sub(name, #start + 1)
  end
  return rooms
end

-- A room: customer, peers (-1: not reported), when it was placed, reservations, number of its growth.

local function add_room(base, room, customer)
  if call('HEXISTS', K['rooms:' .. base.server.address], '') == 0 then error('LOST rooms') end
  base.rooms = base.rooms + 1
  save(base)
  if room ~= base.id then call('ZADD', K.names, 0, base.id .. '\0' .. room) end
  count(customer, 0, 0, 1)
  return {customer, -1, now, 0, 0}
end

local function drop_room(base, room)
  call('HDEL', K['rooms:' .. base.server.address], room)
  if room ~= base.id then call('ZREM', K.names, base.id .. '\0' .. room) end
  base.rooms = base.rooms - 1
end

local function save_or_forget(base, room, row)
  if row[2] >= 0 or row[4] > 0 then return save_room(base.server, room, row) end
  count(row[1], 0, 0, -1)
  drop_room(base, room)
  if base.rooms > 0 then save(base) else call('HDEL', K.bases, base.id) end
end

local function unreport(base, row)
  count_reported(base.server, row[1], -row[2], -1)
  row[2] = -1
  count(row[1], 0, 0, 1)
end

-- Reservations: room, user, customer, when it ends, when it was made; by number in `places`, and by
-- user in `places:ROOM`.

local function end_reservation(number, place, base, row)
  call('HDEL', K.places, number)
  call('ZREM', K['places:' .. place[1]], place[2])
  count(place[3], 0, -1, 0)
  row[4] = math.max(0, row[4] - 1)
  local found = touch(base.server)
  found.n = math.max(0, found.n - 1)
end

local function end_oldest(base, room, row, most)
  if most <= 0 then return end
  local numbers = call('ZRANGE', K['places:' .. room], 0, most - 1, 'WITHSCORES')
  for index = 2, #numbers, 2 do
    local place = read(K.places, numbers[index], PLACE)
    if place then end_reservation(numbers[index], place, base, row) end
  end
end

local function expire()
  local number, last = counters.first, math.min(counters.last, counters.first + SWEEP - 1)
  while number <= last do
    local place = read(K.places, number, PLACE)
    if place then
      if place[4] > now then break end
      local base = base_at(base_of(place[1]))
      local row = base and room_at(base.server, place[1])
      if row then
        end_reservation(number, place, base, row)
        save_or_forget(base, place[1], row)
      else
        call('HDEL', K.places, number)
        count(place[3], 0, -1, 0)
      end
    end
    number = number + 1
  end
  if number ~= counters.first then set('first', number) end
end

local function reserve(base, room, row, user, customer, ends, made)
  local key = K['places:' .. room]
  local before = call('ZSCORE', key, user)
  local held = before and read(K.places, before, PLACE)
  local number = next_number('last')
  if held then
    call('HDEL', K.places, before)
    customer, made = held[3], held[5]
  else
    count(customer, 0, 1, 0)
    row[4] = row[4] + 1
    local found = touch(base.server)
    found.n = found.n + 1
  end
  call('HSET', K.places, number, pack({room, user, customer, ends, made}))
  call('ZADD', key, number, user)
  return not held
end

-- Growth: server, its `born`, places foreseen, joins, when it ends.

local function foreseen(growth, change)
  local found = growth[1] ~= '' and server(growth[1])
  if found and found.born == growth[2] then touch(found).g = found.g + change end
end

local function round(value)
  local whole = math.floor(value)
  local rest = value - whole
  return (rest > 0.5 or (rest == 0.5 and whole % 2 == 1)) and whole + 1 or whole
end

local function begin_growth(found)
  local number = next_number('growing')
  local growth = {found.address, found.born, math.max(0, round(mean) - 1), 1, now + 45}
  foreseen(growth, growth[3])
  call('HSET', K.growth, number, pack(growth))
  return number
end

local function join_growth(number)
  local growth = number > 0 and read(K.growth, number, GROWTH)
  if not growth or now >= growth[5] then return end
  growth[4] = growth[4] + 1
  if growth[3] > 0 then
    growth[3] = growth[3] - 1
    foreseen(growth, -1)
  end
  call('HSET', K.growth, number, pack(growth))
end

local function move_growth(number, found)
  local growth = number > 0 and read(K.growth, number, GROWTH)
  if not growth then return end
  foreseen(growth, -growth[3])
  growth[1], growth[2] = found.address, found.born
  foreseen(growth, growth[3])
  call('HSET', K.growth, number, pack(growth))
end

local function sweep_growth()
  local number, last = counters.grown, counters.growing
  last = math.min(last, number + SWEEP)
  while number < last do
    local growth = read(K.growth, number + 1, GROWTH)
    if growth then
      if growth[5] > now then break end
      foreseen(growth, -growth[3])
      mean = mean + 0.02 * (growth[4] - mean)
      call('HDEL', K.growth, number + 1)
    end
    number = number + 1
  end
  if number ~= counters.grown then
    set('grown', number)
    call('HSET', META, 'mean', mean)
  end
end

-- Facts: what operators and backends have said, each with the number of the change: bans ("b"), drains
-- ("d") and the keys that servers were given ("g"). Gateways read what is new by its number.

local function fact(key) return read(K.facts, key, FACT) end

local function say(key, ...)
  local number = next_number('fact')
  call('HSET', K.facts, key, pack({number, ...}))
  call('ZADD', K.facts_at, number, key)
  call('ZREM', K.ends, key)
end

local function unsay(key)
  call('HDEL', K.facts, key)
  call('ZREM', K.facts_at, key)
  call('ZREM', K.ends, key)
end

-- It is remembered for an hour that something no longer holds.
local function retract(key)
  say(key, false)
  call('ZADD', K.ends, now + 3600, key)
end

local function sweep_bans()
  for _, key in ipairs(call('ZRANGEBYSCORE', K.ends, '(-inf', now, 'LIMIT', 0, SWEEP)) do
    local ban = fact(key)
    if ban and ban[2] and ban[3] then add(K.bans_of, ban[3], -1) end
    unsay(key)
  end
end

-- Tasks: server, base, customer, bytes, times returned, 1 in flight, body. A task's name begins with
-- its number in 16 digits. `queue` and `about` hold "SERVER\0TASK" and "BASE\0TASK", in that order.

local function tasks_in(key, whose)
  local tasks, start = {}, whose .. '\0'
  for _, member in ipairs(call('ZRANGEBYLEX', key, '[' .. start, '(' .. whose .. '\1')) do
    tasks[#tasks + 1] = string.sub(member, #start + 1)
  end
  return tasks
end

local function owe(task, row, sign)
  add(K.owes, 'n' .. row[1] .. '\0' .. row[3], sign)
  add(K.owes, 'b' .. row[1] .. '\0' .. row[3], sign * row[4])
  local member = row[1] .. '\0' .. task
  if sign > 0 then call('ZADD', K.queue, 0, member) else call('ZREM', K.queue, member) end
  local found = server(row[1])
  if found then touch(found).tasks = math.max(0, found.tasks + sign) end
end

local function add_task(task, row)
  call('HSET', K.tasks, task, pack(row))
  call('ZADD', K.about, 0, row[2] .. '\0' .. task)
  owe(task, row, 1)
end

local function drop_task(task, row)
  call('HDEL', K.tasks, task)
  call('ZREM', K.about, row[2] .. '\0' .. task)
  owe(task, row, -1)
end

-- Where the tasks of a base have to wait: with it or, if it is gone, where the newest of them is, in
-- flight or not. If they were at several servers, one could overtake another.
local function home_of(id)
  local base = base_at(id)
  if base and not base.server.removed then return base.server.address end
  local tasks = tasks_in(K.about, id)
  local newest = #tasks > 0 and read(K.tasks, tasks[#tasks], TASK)
  return newest and newest[1]
end

-- Let the tasks of a base wait at a server; those in flight follow when they come back.
local function bring_tasks(id, home)
  for _, task in ipairs(tasks_in(K.about, id)) do
    local row = read(K.tasks, task, TASK)
    if row and row[6] == 0 and row[1] ~= home then
      owe(task, row, -1)
      row[1] = home
      call('HSET', K.tasks, task, pack(row))
      owe(task, row, 1)
    end
  end
end

-- Bases on servers

-- Nothing is placed while gateways still write what Redis has lost.
local function may_place()
  if call('HEXISTS', K.bases, '') == 0 then error('LOST bases') end
  return call('ZCOUNT', K.awaited, now, '+inf') == 0
end

local function place(id, found)
  local base = {id = id, server = found, reported = false, rooms = 0}
  bring_tasks(id, found.address)
  return base
end

local function move(base, found)
  local old, taken = base.server, false
  local rooms = rooms_of(base)
  bring_tasks(base.id, found.address)
  touch(old)
  touch(found)
  for _, room in ipairs(rooms) do
    local row = room_at(old, room)
    if row then
      move_growth(row[5], found)
      if row[2] >= 0 then
        taken = true
        unreport(base, row)
      end
      old.n, found.n = math.max(0, old.n - row[4]), found.n + row[4]
      if row[4] > 0 then
        call('HDEL', K['rooms:' .. old.address], room)
        save_room(found, room, row)
      else
        count(row[1], 0, 0, -1)
        drop_room(base, room)
      end
    end
  end
  -- Its gateway has to look what is left.
  if taken then call('HSET', K['rooms:' .. old.address], '', 'moved') end
  base.server, base.reported = found, false
  if base.rooms > 0 then save(base) end
end

-- Disable or enable a server; only live servers' rooms count as usage.
local function disable(found, disabled)
  local fields = call('HGETALL', K['uses:' .. found.address])
  for index = 1, #fields, 2 do
    local kind, customer = string.sub(fields[index], 1, 1), string.sub(fields[index], 2)
    local change = number_in(fields[index + 1]) * (disabled and -1 or 1)
    if kind == 'p' then count(customer, change, 0, 0) end
    if kind == 'n' then count(customer, 0, 0, change) end
  end
  touch(found).disabled = disabled
end

-- What is left to write

local function write_books(key, books)
  for customer, book_ in pairs(books) do
    for _, kind in ipairs({'p', 'r', 'n'}) do add(key, kind .. customer, book_[kind]) end
  end
end

local function answer(...)
  for found in pairs(dirty) do
    local row = {}
    for index, name in ipairs(FIELDS) do row[index] = found[name] end
    call('HSET', K.servers, found.address, pack(row))
    list_open(found)
  end
  for found, books in pairs(uses) do write_books(K['uses:' .. found.address], books) end
  for customer, book_ in pairs(used) do
    write_books(is_demo(customer) and K.demo or K.usage, {[customer] = book_})
  end
  local fields = {}
  for name in pairs(counted) do
    fields[#fields + 1] = name
    fields[#fields + 1] = counters[name]
  end
  if #fields > 0 then call('HSET', K.counts, unpack(fields)) end
  return pack({skipped, ...})
end
