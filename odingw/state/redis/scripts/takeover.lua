-- Let one gateway at a time take over what the layout before has, until that is done.
--
-- KEYS: the pool's `main`, and the `meta` and `members` of the layout before.
-- ARGV: gateway, time ('': Redis's), lease, '1' if it is done.
-- Answers: 'none' if there is nothing to take over, 'busy' if another gateway does so, 'runs' if gateways
--       of the layout before do, or 'go'.

local call, gateway, now, lease = redis.call, ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = call('TIME')
now = now or time[1] + time[2] / 1000000
if call('EXISTS', KEYS[2]) == 0 or call('HEXISTS', KEYS[1], 'taken') == 1 then return 'none' end
local seen = call('HGETALL', KEYS[3])
for index = 2, #seen, 2 do
  if (tonumber(seen[index]) or 0) > now - lease then return 'runs' end
end
local found = call('HMGET', KEYS[1], 'taker', 'taker_until')
if found[1] and found[1] ~= gateway and (tonumber(found[2]) or 0) > now then return 'busy' end
call('HSET', KEYS[1], 'taker', gateway, 'taker_until', now + lease)
if ARGV[4] == '1' then
  call('HSET', KEYS[1], 'taken', now)
  call('HDEL', KEYS[1], 'taker', 'taker_until')
end
return 'go'
