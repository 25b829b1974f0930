-- Put back what Redis may have lost, from what a gateway knows; what is there already stays.
--
-- Asks: kind and a list: 'facts' {key, row}, 'servers' {address, row}, 'done' tasks, 'tasks' {task, row},
--       'places' {room, user, customer, server, end, made, customer of the room}, or 'end'.
-- Answers: nothing.

local kind, items = request[4], request[5]
if kind ~= 'end' then call('ZADD', K.awaited, 'XX', now + lease, gateway) end

local put = {}

function put.facts(item)
  local key, row = item[1], item[2]
  local before, what, about = fact(key), string.sub(key, 1, 1), server(string.sub(key, 2))
  if before and before[1] >= row[1] then return end
  if what == 'b' and before and before[2] then add(K.bans_of, before[3], -1) end
  set('fact', math.max(counters.fact, row[1]) - 1)
  say(key, unpack(row, 2))
  call('HSET', K.facts, key, pack(row))
  call('ZADD', K.facts_at, row[1], key)
  set('fact', math.max(counters.fact, row[1]))
  if not row[2] then call('ZADD', K.ends, now + 3600, key) end
  if what == 'b' and row[2] then
    call('ZADD', K.ends, row[2], key)
    add(K.bans_of, row[3], 1)
  elseif what == 'd' and about then
    touch(about).drained = row[2]
  elseif what == 'g' and about then
    touch(about).kid = row[2]
  elseif what == 'g' then
    call('ZADD', K.given_others, row[1], string.sub(key, 2))
  end
end

function put.servers(item)
  local address, row = item[1], item[2]
  if server(address) then return end
  local found = {address = address}
  for index, name in ipairs(FIELDS) do found[name] = row[index] end
  for _, name in ipairs({'n', 'g', 'rooms', 'peers', 'tasks'}) do found[name] = 0 end
  local drained, given = fact('d' .. address), fact('g' .. address)
  found.drained, found.kid = drained ~= nil and drained[2], given and given[2] or found.kid
  found.born, found.since = next_number('born'), -1
  servers[address] = touch(found)
  set('load_seen', counters.load_seen + found.load_seen)
  set('clients_seen', counters.clients_seen + found.clients_seen)
  call('HSET', K['uses:' .. address], '', '')
  call('HSET', K['rooms:' .. address], '', '')
  call('ZADD', K.heard, now, address)
end

function put.done(task)
  local row = read(K.tasks, task, TASK)
  call('ZADD', K.done, now, task)
  if row then drop_task(task, row) end
end

function put.tasks(item)
  local task, row = item[1], item[2]
  set('task', math.max(counters.task, tonumber(string.sub(task, 1, 16))))
  if call('HEXISTS', K.tasks, task) == 1 or call('ZSCORE', K.done, task) then return end
  row[1], row[6] = home_of(row[2]) or row[1], 0
  if server(row[1]) then add_task(task, row) end
end

function put.places(item)
  local room, user, customer, address, ends, made, owner = unpack(item)
  local id = base_of(room)
  local base = base_at(id)
  local found = base and base.server or server(address)
  if not found or found.address ~= address then return end
  base = base or place(id, found)
  local row = room_at(found, room) or add_room(base, room, owner)
  if call('ZSCORE', K['places:' .. room], user) then return end
  reserve(base, room, row, user, customer, ends, made)
  save_room(found, room, row)
end

if kind == 'end' then
  call('ZADD', K.awaited, 'XX', '-inf', gateway)
else
  for _, item in ipairs(items) do put[kind](item) end
end
call('ZREMRANGEBYSCORE', K.done, '(-inf', now - 60)
return answer()
