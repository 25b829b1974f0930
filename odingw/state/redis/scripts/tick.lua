-- A sign of life of a gateway, and the periodic work of a pool (Grid.tick): bounded, and done as well
-- twice as once, by whichever gateway. Nobody is blamed for a time in which nobody listened.
--
-- Asks: whether this gateway stood still.
-- Answers: events {kind, server, seconds or tasks}.

local disable_timeout, remove_timeout, unheard_timeout = settings[4], settings[5], settings[6]
local tick_interval, lease, stood_still = settings[7], settings[8], request[4]
local GATEWAYS = TAG .. 'gateways'
local events, addresses = {}, call('ZRANGE', K.heard, 0, -1, 'WITHSCORES')

local function excuse(via)
  for index = 1, #addresses, 2 do
    local found = addresses[index] ~= '' and grid.server(addresses[index])
    if found and (not via or grid.touch(found).via == via) then
      call('ZADD', K.heard, now, found.address)
      addresses[index + 1] = now
      grid.touch(found).since = -1
    end
  end
end

-- Nobody hears the servers of a gateway whose lease is over: they get no new rooms until they report
-- to another one, and keep those that they have.
local function close_unheard()
  local over = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', GATEWAYS, '-inf', now)) do
    over[id] = true
    call('ZREM', GATEWAYS, id)
  end
  for index = 1, next(over) and #addresses or 0, 2 do
    local found = addresses[index] ~= '' and grid.server(addresses[index])
    if found and over[grid.touch(found).via] then
      found.unheard = true
    end
  end
end

local function remove(found)
  events[#events + 1] = {'removed', found.address, (grid.tallies(found, 't'))}
  if found.state == LIVE then grid.disable(found, DISABLED) end
  grid.touch(found).state = REMOVED
  call('HDEL', K.flights, found.address)
  for _, task in ipairs(grid.tasks_in(K.queue, found.address)) do
    local row = grid.task(task)
    if row then grid.drop_task(task, row) end
  end
  grid.set('load_seen', counters.load_seen - found.load_seen)
  grid.set('clients_seen', counters.clients_seen - found.clients_seen)
  if found.drained then
    grid.say('d' .. found.address, false)
    found.drained = false
  end
  if grid.fact('g' .. found.address) then
    call('ZADD', K.given_others, grid.next_number('fact'), found.address)
  end
  call('ZREM', K.heard, found.address)
  call('SADD', K.removed, found.address)
end

local function judge(address, heard)
  local silent = now - heard
  local found = silent > disable_timeout and grid.server(address)
  if silent <= disable_timeout then
    return
  elseif not found then
    call('ZREM', K.heard, address)
  elseif silent > remove_timeout then
    remove(found)
  elseif found.state == LIVE then
    local leased = grid.number(call('ZSCORE', GATEWAYS, grid.touch(found).via)) > now
    if leased or silent > unheard_timeout then
      grid.disable(found, DISABLED)
      events[#events + 1] = {'disabled', address, silent}
    end
  end
end

-- Forget what is on a server that was removed.
local function tidy(address)
  local found, key = grid.server(address), K['rooms:' .. address]
  local rooms = call('HSCAN', key, 0, 'COUNT', SWEEP)[2]
  for index = 1, found and #rooms or 0, 2 do
    local room = rooms[index]
    local row = room ~= '' and grid.room_at(found, room)
    local base = row and grid.base_at(grid.base_of(room))
    if row and base and base.server == found then
      grid.end_oldest(found, room, row, row[4])
      if row[2] >= 0 then grid.unreport(base, row) end
      grid.save_or_forget(base, room, row)
    elseif room ~= '' then
      call('HDEL', key, room)
    end
  end
  if not found or call('HLEN', key) <= 1 then
    for _, name in ipairs({'rooms:', 'uses:', 'named:', 'contested:'}) do call('DEL', K[name .. address]) end
    for _, name in ipairs({'servers', 'targets'}) do call('HDEL', K[name], address) end
    for _, kind in ipairs({'n', 'g', 'r', 'p', 't'}) do call('HDEL', K.tallies, kind .. address) end
    call('ZREM', K.open, address)
    call('SREM', K.removed, address)
    if found then changed[found], tallied[found], uses[found] = nil, nil, nil end
  end
end

local until_ = grid.number(call('ZSCORE', GATEWAYS, gateway))
call('ZADD', GATEWAYS, now + lease, gateway)
local gap = counters.ticked > 0 and now - counters.ticked or 0
if gap > math.max(2.5 * tick_interval, lease) or gap < -1 then excuse(nil)
elseif stood_still or until_ < now then excuse(gateway) end
grid.set('ticked', now)
grid.expire()
grid.sweep_growth()
grid.sweep_bans()
close_unheard()
for index = 1, #addresses, 2 do
  if addresses[index] ~= '' then judge(addresses[index], tonumber(addresses[index + 1])) end
end
for _, address in ipairs(call('SMEMBERS', K.removed)) do tidy(address) end
return grid.answer(events)
