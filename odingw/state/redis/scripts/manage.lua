-- What backends and operators ask for (Grid.command, drain, note_key).
--
-- Asks: 'command', room, task's suffix, customer, bytes, body, ban's key ('': none), seconds (0: lift);
--       or 'drain' or 'disable', server, yes or no; or 'give', server, key id, when (false: now).
-- Answers: '' or the reason, and task and server, or the number of what was said.

local what = request[4]

local function too_many_bans(key, customer)
  local before = fact(key)
  if before and before[2] and before[3] == customer then return false end
  return number_in(call('HGET', K.bans_of, customer)) >= bans_per_customer
end

local function lift(key)
  local before = fact(key)
  if not before or not before[2] then return false end
  add(K.bans_of, before[3], -1)
  retract(key)
  return true
end

local function command(room, suffix, customer, size, body, ban, seconds)
  expire()
  sweep_bans()
  local id = base_of(room)
  local base = base_at(id)
  if not base or base.server.removed then
    -- A room that is gone has no server to tell, yet its ban can be lifted.
    if ban ~= '' and seconds == 0 and lift(ban) then return answer('', '', '') end
    if not may_place() then return answer('store_unavailable') end
    return answer('room_not_found')
  end
  if not may_place() then return answer('store_unavailable') end
  local address = base.server.address
  local owed = call('HMGET', K.owes, 'n' .. address .. '\0' .. customer, 'b' .. address .. '\0' .. customer)
  if number_in(owed[1]) >= queued_tasks
    or number_in(owed[2]) + size > 4 * 1048576 then
    return answer('too_many_tasks')
  end
  if ban ~= '' and seconds > 0 and too_many_bans(ban, customer) then return answer('too_many_bans') end
  if ban ~= '' then
    lift(ban)
    if seconds > 0 then
      say(ban, now + seconds, customer)
      call('ZADD', K.ends, now + seconds, ban)
      add(K.bans_of, customer, 1)
    end
  end
  local task = string.format('%016d', next_number('task')) .. suffix
  add_task(task, {address, id, customer, size, 0, 0, body})
  return answer('', task, address)
end

if what == 'command' then return command(unpack(request, 5, 11)) end

local address, value = request[5], request[6]
local found = server(address)
found = found and not found.removed and found

if what == 'give' then
  local before, at = fact('g' .. address), request[7] or now
  -- The last word counts, also where the clock was set back.
  if before and request[7] and before[3] > at then return answer('', false) end
  say('g' .. address, value, before and math.max(before[3], at) or at)
  if found then
    touch(found).kid = value
  else
    call('ZADD', K.given_others, counters.fact, address)
    -- Only so many servers that are not attached are remembered.
    for _, other in ipairs(call('ZRANGE', K.given_others, 0, -1 - keys_of_others)) do
      call('ZREM', K.given_others, other)
      unsay('g' .. other)
    end
  end
  return answer('', before and before[2] == value)
end

if not found then return answer('server_not_found') end
if what == 'drain' then
  if value then say('d' .. address, true) else retract('d' .. address) end
  touch(found).drained = value
elseif not found.disabled then
  disable(found, true)
  found.since = -1
end
return answer('')
