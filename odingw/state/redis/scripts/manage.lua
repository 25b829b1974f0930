-- What backends and operators ask for (Grid.command, drain, note_key).
--
-- Asks: 'command', room, task's suffix, customer, bytes, body, ban's key ('': none), seconds (0: lift);
--       or 'drain' or 'disable', server, yes or no; or 'give', server, key id, when (false: now).
-- Answers: '' or the reason, the fact {key, row}, task, server.

local what, queued_tasks, bans_per_customer = request[4], settings[2], settings[3]

if call('HEXISTS', K.facts, '') == 0 then error('LOST facts') end

local function too_many_bans(key, customer)
  local before = grid.fact(key)
  if before and before[2] and before[3] == customer then return false end
  return tonumber(call('HGET', K.bans_of, customer) or 0) >= bans_per_customer
end

local function lift(key)
  local before = grid.fact(key)
  if not before or not before[2] then return false end
  grid.add(K.bans_of, before[3], -1)
  return grid.say(key, false)
end

local function command(room, suffix, customer, size, body, ban, seconds)
  grid.expire()
  grid.sweep_bans()
  local id = grid.base_of(room)
  local base = grid.base_at(id)
  if not base or base.server.state == REMOVED then
    -- A room that is gone has no server to tell, yet its ban can be lifted.
    local lifted = ban ~= '' and seconds == 0 and lift(ban)
    if lifted then return grid.answer('', lifted, '', '') end
    if not grid.may_place() then return grid.answer('store_unavailable') end
    return grid.answer('room_not_found')
  end
  if not grid.may_place() then return grid.answer('store_unavailable') end
  local address = base.server.address
  local owed = call('HMGET', K.owes, 'n' .. address .. '\0' .. customer, 'b' .. address .. '\0' .. customer)
  if grid.number(owed[1]) >= queued_tasks
    or grid.number(owed[2]) + size > 4 * 1048576 then
    return grid.answer('too_many_tasks')
  end
  if ban ~= '' and seconds > 0 and too_many_bans(ban, customer) then return grid.answer('too_many_bans') end
  local said = ban ~= '' and lift(ban)
  if ban ~= '' and seconds > 0 then said = grid.say(ban, now + seconds, customer) end
  local task = string.format('%016d', grid.next_number('task')) .. suffix
  grid.add_task(task, {address, id, customer, size, 0, 0, body})
  return grid.answer('', said, task, address)
end

if what == 'command' then return command(unpack(request, 5, 11)) end

local address, value = request[5], request[6]
local found = grid.server(address)
found = found and found.state ~= REMOVED and found

if what == 'give' then
  local before, at = grid.fact('g' .. address), request[7] or now
  -- The last word counts, also where the clock was set back.
  if before and request[7] and before[3] > at then return grid.answer('', false) end
  local said = grid.say('g' .. address, value, before and math.max(before[3], at) or at)
  if found then
    grid.touch(found).kid = value
  else
    call('ZADD', K.given_others, counters.fact, address)
    -- Only so many servers that are not attached are remembered.
    for _, other in ipairs(call('ZRANGE', K.given_others, 0, -1 - settings[9])) do
      call('ZREM', K.given_others, other)
      grid.unsay('g' .. other)
    end
  end
  return grid.answer('', said)
end

if not found then return grid.answer('server_not_found') end
local said = false
if what == 'drain' then
  said = grid.say('d' .. address, value)
  grid.touch(found).drained = value
elseif found.state == LIVE then
  grid.disable(found, DISABLED)
end
return grid.answer('', said)
