-- One commit of one gateway to one pool: a list of operations, carried out all at once.
--
-- KEYS: as in layout.py, all of one hash tag, so all in one slot of a Redis Cluster.
-- ARGV: the gateway's id, the number of its commit, the time, then the operations, each a code and
--       its arguments. Times and rows are texts that are passed through as they are.
-- Returns: the sequence number of what was published (0: nothing was), and a result for each
--       operation that has one, in order.

local META, SERVERS, HEARD, DISABLED, DRAINED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local BASES, REFS, ROOMS, PLACES, BANS = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local TASKS, AT, RETURNED, QUEUE = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local FLIGHTS, FLYING, MEMBERS, GIVEN, TASKS_OF = KEYS[15], KEYS[16], KEYS[17], KEYS[18], KEYS[19]

local MAX_RETURNS = 3
local DELIVERY_BYTES = 1048576

local call = redis.call
local gateway, now = ARGV[1], tonumber(ARGV[3])
local out, last, results = {}, {}, {}

local function publish(...)
  for _, value in ipairs({...}) do out[#out + 1] = value end
end

-- Gateways of the layout before know nothing of it, and pass over what comes after it.
local function publish_last(...)
  for _, value in ipairs({...}) do last[#last + 1] = value end
end

local function result(value) results[#results + 1] = value end

-- A base is stored as "1 server" once its server has reported a room of it, before that "0 server".
local function owner(base)
  local value = call('HGET', BASES, base)
  if value then return string.sub(value, 3), string.sub(value, 1, 1) == '1' end
end

local function alive(server)
  return call('HEXISTS', SERVERS, server) == 1 and call('SISMEMBER', DISABLED, server) == 0
end

-- A base lives as long as rooms or places refer to it.
local function refer(base, change)
  if call('HINCRBY', REFS, base, change) <= 0 then
    call('HDEL', REFS, base)
    call('HDEL', BASES, base)
  end
end

-- Queues are one sorted set of equal scores, in the order of these texts; so are the tasks of each
-- base in another one.
local function queued(whose, number) return string.format('%s\n%016d', whose, number) end

local function numbers_in(key, whose)
  local numbers = {}
  for _, member in ipairs(call('ZRANGEBYLEX', key, '[' .. whose .. '\n', '(' .. whose .. '\v')) do
    numbers[#numbers + 1] = string.format('%d', tonumber(string.sub(member, #whose + 2)))
  end
  return numbers
end

-- The base that a task is for: the first text of its row.
local function base_of(row)
  local at = 3
  while true do
    local found = string.find(row, '["\\]', at)
    if string.byte(row, found) == 34 then return cjson.decode(string.sub(row, 1, found) .. ']')[1] end
    at = found + 2
  end
end

-- Where the tasks of a base have to wait: with it or, if it is gone, where the newest of them is,
-- in flight or not. If they were at several servers, one could overtake another.
local function home_of(base, numbers)
  return owner(base) or (#numbers > 0 and call('HGET', AT, numbers[#numbers]))
end

-- Let tasks of a base wait at a server; those in flight follow when they come back.
local function bring(numbers, home)
  for _, number in ipairs(numbers) do
    local server = call('HGET', AT, number)
    if server and server ~= home and call('HEXISTS', FLYING, number) == 0 then
      call('ZREM', QUEUE, queued(server, tonumber(number)))
      call('ZADD', QUEUE, 0, queued(home, tonumber(number)))
      call('HSET', AT, number, home)
      publish('t', number, home)
    end
  end
end

local function set_base(base, server, reported)
  local value = (reported and '1 ' or '0 ') .. server
  call('HSET', BASES, base, value)
  publish('B', base, value)
  bring(numbers_in(TASKS_OF, base), server)
end

local function flags(server)
  publish('F', server, tostring(call('SISMEMBER', DISABLED, server)),
    tostring(call('SISMEMBER', DRAINED, server)))
end

local function drop_task(number)
  local server = call('HGET', AT, number)
  if not server then return end
  call('ZREM', QUEUE, queued(server, tonumber(number)))
  call('ZREM', TASKS_OF, queued(base_of(call('HGET', TASKS, number)), tonumber(number)))
  for _, key in ipairs({TASKS, AT, RETURNED, FLYING}) do call('HDEL', key, number) end
  publish('-T', number)
end

local function add_task(number, server, row, returned)
  call('HSET', TASKS, number, row)
  call('HSET', AT, number, server)
  if returned ~= '0' then call('HSET', RETURNED, number, returned) end
  call('ZADD', QUEUE, 0, queued(server, tonumber(number)))
  call('ZADD', TASKS_OF, 0, queued(base_of(row), tonumber(number)))
  publish('T', number, server, returned, row)
end

-- How a flight ended: '1' it arrived, '0' it did not, '-' it never left.
local function end_flight(server, flight, how)
  call('HDEL', FLIGHTS, server)
  local dropped, homes = {}, {}
  for number in string.gmatch(how == '1' and '' or flight, '%d+') do
    local row = call('HGET', TASKS, number)
    local base = row and base_of(row)
    if base and not homes[base] then homes[base] = home_of(base, numbers_in(TASKS_OF, base)) end
  end
  for number in string.gmatch(flight, '%d+') do
    if call('HDEL', FLYING, number) == 1 then
      local times = how == '0' and call('HINCRBY', RETURNED, number, 1) or 0
      if how == '1' or times > MAX_RETURNS then
        if how ~= '1' then dropped[#dropped + 1] = number end
        drop_task(number)
      else
        if how == '0' then publish('V', number, tostring(times)) end
        -- Gateways that have heard of its base believe that it has followed.
        publish('t', number, server)
      end
    end
  end
  for base, home in pairs(homes) do bring(numbers_in(TASKS_OF, base), home) end
  return dropped
end

-- End the flight of a gateway that is no more. Nobody knows what became of it, so it is not held
-- against the tasks.
local function recall(server, flight, lease)
  local holder = string.match(flight, '^(%S+)')
  local seen = call('HGET', MEMBERS, holder)
  if holder == gateway or (seen and now - tonumber(seen) < lease) then return false end
  end_flight(server, string.match(flight, '^%S+ %S+ (.*)$'), '-')
  return true
end

local ops = {}

-- A server has reported.
ops['S'] = {3, function(server, row, heard)
  local new = call('HSET', SERVERS, server, row) == 1
  call('HSET', HEARD, server, heard)
  publish('S', server, row, heard)
  if call('SREM', DISABLED, server) == 1 or new then flags(server) end
end}

-- A server has been silent since it was last heard of.
ops['X'] = {2, function(server, heard)
  local last = call('HGET', HEARD, server)
  if last and tonumber(last) <= tonumber(heard) then
    if call('SADD', DISABLED, server) == 1 then flags(server) end
    result('')
  else
    result(last or '')
  end
end}

-- It has been silent for so long that it is forgotten, and its tasks with it.
ops['R'] = {2, function(server, heard)
  local last = call('HGET', HEARD, server)
  if last and tonumber(last) <= tonumber(heard) then
    for _, number in ipairs(numbers_in(QUEUE, server)) do drop_task(number) end
    for _, key in ipairs({SERVERS, HEARD, FLIGHTS}) do call('HDEL', key, server) end
    for _, key in ipairs({DISABLED, DRAINED}) do call('SREM', key, server) end
    publish('-S', server)
    result('')
  else
    result(last or '')
  end
end}

ops['D'] = {2, function(server, drained)
  if call('HEXISTS', SERVERS, server) == 0 then return result(0) end
  call(drained == '1' and 'SADD' or 'SREM', DRAINED, server)
  flags(server)
  result(1)
end}

-- A server that Redis has lost was drained.
ops['Dn'] = {1, function(server)
  if call('HEXISTS', SERVERS, server) == 0 then call('SADD', DRAINED, server) end
end}

-- Nobody was there to hear the servers: each counts as just heard.
ops['E'] = {0, function()
  for _, server in ipairs(call('HKEYS', HEARD)) do call('HSET', HEARD, server, ARGV[3]) end
  publish('E', ARGV[3])
end}

-- A server was given a key; the last time counts.
ops['k'] = {2, function(server, row)
  local value = call('HGET', GIVEN, server)
  if value and tonumber(string.match(value, '^%S+')) > tonumber(string.match(row, '^%S+')) then
    return
  end
  call('HSET', GIVEN, server, row)
  publish_last('k', server, row)
end}

ops['-k'] = {2, function(server, at_)
  local value = call('HGET', GIVEN, server)
  if value and tonumber(string.match(value, '^%S+')) <= tonumber(at_) then
    call('HDEL', GIVEN, server)
    publish_last('-k', server)
  end
end}

-- Put a base on a server. It stays where it is, unless its server is gone or silent, or has never
-- reported it while this one does and claims it: not knowing of a place that has just been reserved
-- there, its gateway may have let it have the base.
ops['B'] = {4, function(base, server, reported, claims)
  local current, known = owner(base)
  reported = reported == '1'
  if current == server then
    if reported and not known then set_base(base, server, true) end
  elseif not current or not alive(current) or (claims == '1' and not known) then
    set_base(base, server, reported)
    current = server
  end
  result(current)
end}

-- What a server reports of a room counts if it has the room's base.
ops['r'] = {4, function(base, server, room, row)
  local current = owner(base)
  if not current then
    set_base(base, server, true)
  elseif current ~= server then
    return
  end
  if call('HSET', ROOMS, room, server .. '\n' .. row) == 1 then refer(base, 1) end
  publish('r', room, server, row)
end}

ops['-r'] = {3, function(base, server, room)
  local value = call('HGET', ROOMS, room)
  if value and string.sub(value, 1, #server + 1) == server .. '\n' then
    call('HDEL', ROOMS, room)
    refer(base, -1)
    publish('-r', room, server)
  end
end}

-- What a server reported of a room is dropped because the base has moved, if Redis thinks so too.
ops['m'] = {3, function(base, server, room)
  if owner(base) ~= server then return ops['-r'][2](base, server, room) end
  local value = call('HGET', ROOMS, room)
  if value and string.sub(value, 1, #server + 1) == server .. '\n' then
    publish('r', room, server, string.sub(value, #server + 2))
  end
end}

-- Reserve a place, and tell which server it is on.
ops['p'] = {4, function(base, server, place, row)
  local current, known = owner(base)
  if not current then
    set_base(base, server, false)
    current = server
  end
  if call('HSET', PLACES, place, row) == 1 then refer(base, 1) end
  -- Another gateway may just have forgotten the base, not knowing of this place.
  publish('B', base, (known and '1 ' or '0 ') .. current, 'p', place, row)
  result(current)
end}

ops['-p'] = {3, function(base, place, ends)
  local value = call('HGET', PLACES, place)
  if value and tonumber(string.match(value, '^%S+')) <= tonumber(ends) then
    call('HDEL', PLACES, place)
    refer(base, -1)
    publish('-p', place)
  end
end}

ops['b'] = {2, function(ban, row)
  call('HSET', BANS, ban, row)
  publish('b', ban, row)
end}

-- Put a ban back that Redis has lost.
ops['bn'] = {2, function(ban, row)
  if call('HSETNX', BANS, ban, row) == 1 then publish('b', ban, row) end
end}

ops['-b'] = {2, function(ban, until_)
  local value = call('HGET', BANS, ban)
  if value and tonumber(string.match(value, '^%S+')) <= tonumber(until_) then
    call('HDEL', BANS, ban)
    publish('-b', ban)
  end
end}

-- Until when a ban holds; '' if there is none.
ops['c'] = {1, function(ban)
  local value = call('HGET', BANS, ban)
  result(value and string.match(value, '^%S+') or '')
end}

-- Queue a task for whichever server has the base, with the ban that comes with it; a ban without a
-- row is lifted.
ops['T'] = {4, function(base, row, ban, ban_row)
  local server = owner(base)
  if not server then
    if ban ~= '' and ban_row == '' and call('HDEL', BANS, ban) == 1 then
      publish('-b', ban)
      return result('lifted')
    end
    return result('')
  end
  if ban ~= '' then
    if ban_row ~= '' then
      ops['b'][2](ban, ban_row)
    elseif call('HDEL', BANS, ban) == 1 then
      publish('-b', ban)
    end
  end
  local number = string.format('%d', call('HINCRBY', META, 'task', 1))
  add_task(number, server, row, '0')
  result({number, server})
end}

-- A gateway has moved a task; tell all which server has it.
ops['t'] = {1, function(number)
  local server = call('HGET', AT, number)
  if server then publish('t', number, server) end
  result(server or '')
end}

-- Put a task back that Redis has lost.
ops['U'] = {4, function(number, server, returned, row)
  local there = call('HGET', TASKS, number)
  if there == row then return end
  if there then number = string.format('%d', call('HINCRBY', META, 'task', 1)) end
  if tonumber(number) > tonumber(call('HGET', META, 'task') or '0') then
    call('HSET', META, 'task', number)
  end
  add_task(number, server, row, returned)
end}

-- Put what may be sent to a server now in flight.
ops['K'] = {3, function(server, token, lease)
  local flight = call('HGET', FLIGHTS, server)
  if flight and not recall(server, flight, tonumber(lease)) then return result({}) end
  local batch, taken, size = {}, {}, 0
  for _, number in ipairs(numbers_in(QUEUE, server)) do
    if call('HEXISTS', FLYING, number) == 0 then
      local times = tonumber(call('HGET', RETURNED, number) or '0')
      if #taken > 0 and times >= MAX_RETURNS then break end
      local row = call('HGET', TASKS, number)
      size = size + #(row or '')
      if #taken > 0 and size > DELIVERY_BYTES then break end
      taken[#taken + 1] = number
      batch[#batch + 1] = {number, row, tostring(times)}
      call('HSET', FLYING, number, server)
      if times >= MAX_RETURNS then break end
    end
  end
  if #taken > 0 then
    call('HSET', FLIGHTS, server, gateway .. ' ' .. token .. ' ' .. table.concat(taken, ' '))
  end
  result(batch)
end}

-- A flight has ended; tells which tasks are given up.
ops['A'] = {3, function(server, token, how)
  local flight = call('HGET', FLIGHTS, server)
  if not flight or string.match(flight, '^%S+ (%S+)') ~= token then return result({}) end
  result(end_flight(server, string.match(flight, '^%S+ %S+ (.*)$'), how))
end}

-- A sign of life, answered with what tells whether this is still the same Redis.
ops['H'] = {2, function(fresh, lease)
  call('HSET', MEMBERS, gateway, ARGV[3])
  call('HSETNX', META, 'epoch', fresh)
  local flights = call('HGETALL', FLIGHTS)
  for index = 1, #flights, 2 do recall(flights[index], flights[index + 1], tonumber(lease)) end
  local others = 0
  local members = call('HGETALL', MEMBERS)
  for index = 1, #members, 2 do
    local age = now - tonumber(members[index + 1])
    if age > 600 then
      call('HDEL', MEMBERS, members[index])
    elseif age < tonumber(lease) and members[index] ~= gateway then
      others = others + 1
    end
  end
  result({call('HGET', META, 'epoch'), tonumber(call('HGET', META, 'seq') or '0'), others})
end}

-- A gateway ends: what it has in flight is nobody's any more.
ops['L'] = {0, function()
  call('HDEL', MEMBERS, gateway)
end}

local at = 4
while at <= #ARGV do
  local op = ops[ARGV[at]]
  if not op then return redis.error_reply('ERR unknown operation ' .. ARGV[at]) end
  local count = op[1]
  op[2](unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end

local seq = 0
for _, value in ipairs(last) do out[#out + 1] = value end
if #out > 0 then
  seq = call('HINCRBY', META, 'seq', 1)
  call('PUBLISH', META .. ':changes', cmsgpack.pack({seq, gateway, ARGV[2], out}))
end
return {seq, results}
