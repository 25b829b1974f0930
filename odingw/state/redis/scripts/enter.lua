-- Let a gateway into the fleet, and begin a new epoch if Redis has lost what it was told. An epoch is in
-- the names of all keys but `main` and `gateways`, so what is left of the one before is not found.
--
-- KEYS[1]: the pool's `main`.
-- ARGV: gateway, time ('': Redis's), lease, layout, fingerprint of the settings, fresh epoch, epoch that
--       is lost ('': none), epoch and run that this gateway knows ('': none),
--       run: what tells this Redis from one that took its place, how many fingerprints of master keys, these, and ids of gateways that there were.
-- Answers: '', epoch, 1 if Redis may have lost what it was told, gateways with a lease, 1 if the settings
--       differ; or what differs, 'key' or 'layout', and the layout found.

local call, MAIN = redis.call, KEYS[1]
local TAG = string.sub(MAIN, 1, -5)
local gateway, now, lease, layout, settings, fresh, lost, mine, run, keys = unpack(ARGV)
local time = call('TIME')
now = tonumber(now) or time[1] + time[2] / 1000000

call('HSETNX', MAIN, 'layout', layout)
call('HSETNX', MAIN, 'key', ARGV[11])
local found = call('HMGET', MAIN, 'layout', 'key', 'settings', 'epoch', 'run')
if found[1] ~= layout then return {'layout', found[1]} end
local known = false
for index = 11, 10 + keys do known = known or ARGV[index] == found[2] end
if not known then return {'key', found[1]} end
call('HSET', MAIN, 'key', ARGV[11], 'settings', settings, 'run', run)

local epoch, is_fresh = found[4], 0
local function key(name) return TAG .. epoch .. ':' .. name end

-- What everybody can delete has an empty member that nobody else would put there.
local HASHES = 'servers targets tallies bases places growth usage demo facts bans_of tasks owes flights'
local ZSETS = 'heard open facts_at ends awaited done'
local LISTS = 'names queue about'
if not epoch or epoch == lost then
  epoch, is_fresh = fresh, 1
  call('HSET', MAIN, 'epoch', epoch)
  for name in string.gmatch(HASHES, '%S+') do call('HSET', key(name), '', '') end
  for name in string.gmatch(ZSETS, '%S+') do
    call('ZADD', key(name), name == 'open' and '+inf' or '-inf', '')
  end
  for name in string.gmatch(LISTS, '%S+') do call('ZADD', key(name), 0, '') end
  call('HSET', key('counts'), 'row', cmsgpack.pack({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}))
end

-- Nothing is placed until all that were there have written what they know.
local awaited, is_new_run = key('awaited'), found[5] and found[5] ~= run
local is_lost = mine ~= '' and mine ~= epoch .. ' ' .. run
for index = 11 + keys, #ARGV do
  if is_fresh == 1 or is_new_run then call('ZADD', awaited, now + lease, ARGV[index]) end
end
if is_lost then call('ZADD', awaited, now + lease, gateway) end
local others = call('ZRANGEBYSCORE', TAG .. 'gateways', now, '+inf')
-- One that comes back has its lease from its first tick, which excuses the servers that it hears.
if mine == '' then call('ZADD', TAG .. 'gateways', 'NX', now + lease, gateway) end
return {'', epoch, is_lost and 1 or 0, others, found[3] and found[3] ~= settings and 1 or 0}
