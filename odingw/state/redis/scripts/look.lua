-- What gateways keep a copy of, as far as it is new, and whether all keys are still there.
--
-- Asks: the time of the last look, the number of the last change of servers then, the number of the last
--       fact that is known, tasks that may be done.
-- Answers: time, number of the last change of servers, all servers or those that were heard since
--       {address, heard, row}, whether these are all, facts {key, row}, usage {field, count, ...},
--       demo users' peers, reservations and rooms, gateways with a lease, how many of them still write,
--       growth, which tasks are done.

for name in string.gmatch('servers bases places growth usage demo facts bans_of tasks owes flights',
  '%S+') do
  if redis.pcall('HEXISTS', K[name], '') ~= 1 then error('LOST ' .. name) end
end
if redis.pcall('HEXISTS', K.counts, 'first') ~= 1 then error('LOST counts') end
for name in string.gmatch('heard open names facts_at ends queue about awaited done', '%S+') do
  local score = redis.pcall('ZSCORE', K[name], '')
  if type(score) ~= 'string' then error('LOST ' .. name) end
end

local since, changed, last, waiting = unpack(request, 4, 7)
local all = changed ~= counters.changed
local found = {}
local heard = call('ZRANGEBYSCORE', K.heard, all and '(-inf' or since, '+inf', 'WITHSCORES')
for index = 1, #heard, 2 do
  local row = heard[index] ~= '' and read(K.servers, heard[index], SERVER)
  if row then found[#found + 1] = {heard[index], tonumber(heard[index + 1]), row} end
end
local facts = {}
for _, key in ipairs(call('ZRANGEBYSCORE', K.facts_at, '(' .. last, '+inf', 'LIMIT', 0, 1000)) do
  local row = key ~= '' and fact(key)
  if row then facts[#facts + 1] = {key, row} end
end
local done = {}
for _, task in ipairs(waiting) do
  if call('HEXISTS', K.tasks, task) == 0 then done[#done + 1] = task end
end
return answer(now, counters.changed, found, all, facts, call('HGETALL', K.usage),
  {counters.demo_p, counters.demo_r, counters.demo_n},
  call('ZRANGEBYSCORE', TAG .. 'gateways', now, '+inf'), call('ZCOUNT', K.awaited, now, '+inf'),
  mean, done)
