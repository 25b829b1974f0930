-- What gateways keep a copy of, as far as it is new, and whether all keys are still there.
--
-- Asks: the number of the last fact that is known, tasks that may be done.
-- Answers: time, servers {address, row, ...}, tallies {field, count, ...}, facts {key, row}, usage {field, count, ...}, demo users'
--       peers, reservations and rooms, gateways with a lease, growth, which tasks are done.

for name in string.gmatch('servers targets tallies bases places growth usage demo facts bans_of tasks owes flights',
  '%S+') do
  if redis.pcall('HEXISTS', K[name], '') ~= 1 then error('LOST ' .. name) end
end
for name in string.gmatch('heard open names facts_at ends queue about awaited done', '%S+') do
  local score = redis.pcall('ZSCORE', K[name], '')
  if type(score) ~= 'string' then error('LOST ' .. name) end
end

local last, waiting = request[4], request[5]
local facts = {}
for _, key in ipairs(call('ZRANGEBYSCORE', K.facts_at, '(' .. last, '+inf', 'LIMIT', 0, 1000)) do
  local row = key ~= '' and grid.fact(key)
  if row then facts[#facts + 1] = {key, row} end
end
local done = {}
for _, task in ipairs(waiting) do
  if call('HEXISTS', K.tasks, task) == 0 then done[#done + 1] = task end
end
return grid.answer(now, call('HGETALL', K.servers), call('HGETALL', K.tallies), facts, call('HGETALL', K.usage),
  {counters.demo_p, counters.demo_r, counters.demo_n},
  call('ZRANGEBYSCORE', TAG .. 'gateways', now, '+inf'), grid.mean, done)
