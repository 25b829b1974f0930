-- Put back what Redis may have lost, from what a gateway knows; what is there already stays.
--
-- Asks: kind and a list: 'facts' {key, row}, 'servers' {address, row}, 'done' tasks, 'tasks' {task, row},
--       'rooms' {room, server, customer, peers, placed}, 'places' {room, user, customer, server, end, made,
--       customer of the room}, or 'end'.
-- Answers: nothing.

local kind, items, lease = request[4], request[5], settings[8]
if kind ~= 'end' then call('ZADD', K.awaited, 'XX', now + lease, gateway) end

local put = {}

function put.facts(item)
  local key, row = item[1], item[2]
  local before, what, found = grid.fact(key), string.sub(key, 1, 1), grid.server(string.sub(key, 2))
  if before and before[1] >= row[1] then return end
  if what == 'b' and before and before[2] then grid.add(K.bans_of, before[3], -1) end
  grid.put_fact(key, row)
  if what == 'd' and found then grid.touch(found).drained = row[2] end
  if what == 'g' and found then grid.touch(found).kid = row[2] end
  if what == 'g' and not found then call('ZADD', K.given_others, row[1], string.sub(key, 2)) end
end

function put.servers(item)
  local address, row = item[1], item[2]
  if grid.server(address) then return end
  local drained, given = grid.fact('d' .. address), grid.fact('g' .. address)
  local found = {address = address, tallies = {}}
  for index, name in ipairs(FIELDS) do found[name] = row[index] end
  found.drained, found.kid = drained ~= nil and drained[2], given and given[2] or found.kid
  found.born, found.since = grid.next_number('born'), -1
  servers[address], changed[found] = found, true
  grid.set('load_seen', counters.load_seen + found.load_seen)
  grid.set('clients_seen', counters.clients_seen + found.clients_seen)
  call('HSET', K['uses:' .. address], '', '')
  call('HSET', K['rooms:' .. address], '', '')
  call('ZADD', K.heard, now, address)
end

-- The base of a room, and its server, if that is the one with this address.
local function base_on(address, room)
  local id = grid.base_of(room)
  local base = grid.base_at(id)
  local found = base and base.server or grid.server(address)
  if found and found.address == address then return base or grid.place(id, found), found end
end

function put.rooms(item)
  local room, address, customer, peers, placed = unpack(item)
  local base, found = base_on(address, room)
  if not base then return end
  local row = grid.room_at(found, room) or grid.add_room(base, room, customer)
  if row[2] >= 0 then return end
  grid.count(row[1], 0, 0, -1)
  row[1], row[2], row[3], base.reported = customer, peers, placed, true
  grid.count_reported(found, customer, peers, 1)
  grid.save_room(found, room, row)
  grid.save(base)
end

function put.done(task)
  local row = grid.task(task)
  call('ZADD', K.done, now, task)
  if row then grid.drop_task(task, row) end
end

function put.tasks(item)
  local task, row = item[1], item[2]
  grid.set('task', math.max(counters.task, tonumber(string.sub(task, 1, 16))))
  if call('HEXISTS', K.tasks, task) == 1 or call('ZSCORE', K.done, task) then return end
  row[1], row[6] = grid.home_of(row[2]) or row[1], 0
  if grid.server(row[1]) then grid.add_task(task, row) end
end

function put.places(item)
  local room, user, customer, address, ends, made, owner = unpack(item)
  local base, found = base_on(address, room)
  if not base then return end
  local row = grid.room_at(found, room) or grid.add_room(base, room, owner)
  if grid.held(room, row, user) then return end
  grid.reserve(found, room, row, user, customer, ends, made)
end

if kind == 'end' then
  call('ZADD', K.awaited, 'XX', '-inf', gateway)
else
  for _, item in ipairs(items) do put[kind](item) end
end
call('ZREMRANGEBYSCORE', K.done, '(-inf', now - 60)
return grid.answer()
