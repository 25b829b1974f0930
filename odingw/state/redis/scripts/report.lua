-- Take in what a server says of itself and its rooms (Reports.take_in), as the difference to what it
-- said before; with many changes in several calls.
--
-- Asks: server, stamp that it should have, stamp that it gets, first call, last call, row
--       {kid, version, load, clients}, rooms {room, customer, peers, ...}, further entries for them, those
--       of other servers so far,
--       rooms that are gone, whether the report is the server's first, token to take tasks by ('': none), tokens of
--       this gateway's flights to it.
-- Answers: 'whole' if there was another stamp; else attached ('', 'new', 'returned'), rooms of other
--       servers {room, owner, ...}, whether it is the first, contests {room, keeper, loser, ...}, their
--       number, tasks.

local address, expected, stamp, is_start, is_end = unpack(request, 4, 8)
local said, rooms, twice, again, gone, is_first, token = unpack(request, 9, 15)
local books = K['rooms:' .. address]
local found = grid.server(address)
local known = found and found.state ~= REMOVED
local attached, contests, contested, kept = '', {}, 0, {}

if known and (call('HEXISTS', books, '') == 0 or call('HEXISTS', K['uses:' .. address], '') == 0) then
  error('LOST rooms')
end
if is_start then grid.expire() end
if (call('HGET', books, '') or '') ~= expected then
  call('HSET', books, '', stamp)
  return grid.answer('whole')
end

local function price(learnt)
  local fleet = counters.clients_seen > 1e-9 and counters.load_seen / counters.clients_seen or 1 / 500
  learnt.cost = (learnt.load_seen + 20 * fleet) / (learnt.clients_seen + 20)
end

local function attach()
  attached = 'new'
  local given, drained = grid.fact('g' .. address), grid.fact('d' .. address)
  -- Of one that was removed, some rooms may be left.
  if found then grid.disable(found, LIVE) end
  found = found or {address = address, tallies = {}}
  found.kid, found.state, found.drained = given and given[2] or said[1], LIVE, drained ~= nil and drained[2]
  found.estimate, found.load, found.load_seen, found.clients_seen = said[3], said[3], 0, 0
  found.born, found.first, found.since, found.via = grid.next_number('born'), now, -1, gateway
  servers[address] = found
  price(found)
  call('HDEL', K.tallies, 'g' .. address)
  call('HSET', K['uses:' .. address], '', '')
  call('ZREM', K.given_others, address)
  call('SREM', K.removed, address)
end

-- A busy server's figures say what a client costs; an idle one's are noise (CostModel.report).
local function hear_again()
  local load, clients = said[3], said[4]
  if load >= 0.05 and clients >= 20 then
    local before, seen = found.load_seen, found.clients_seen
    found.load_seen, found.clients_seen = 0.8 * before + load, 0.8 * seen + clients
    grid.set('load_seen', counters.load_seen - before + found.load_seen)
    grid.set('clients_seen', counters.clients_seen - seen + found.clients_seen)
  end
  price(found)
  local estimate = math.max(0, found.estimate + found.cost * (clients - found.clients))
  -- A full server reports 1 however far above it is: that is a bound, not a value.
  if load < 1 or estimate < 1 then estimate = estimate + 0.2 * (load - estimate) end
  found.estimate, found.load = estimate, load
  if found.state ~= LIVE then
    grid.disable(found, LIVE)
    attached = 'returned'
  end
end

if is_start and known then grid.touch(found) end
if is_start then
  is_first = not known or found.state ~= LIVE or found.since < 0
  if known then hear_again() else attach() end
  found.version, found.clients, found.seen = said[2], said[4], now
  found.via, found.unheard = gateway, false
  call('ZADD', K.heard, now, address)
end
if not found or found.state == REMOVED then return grid.answer('whole') end
grid.touch(found)
call('HSET', books, '', stamp)

local function contest(room, keeper, loser)
  contested = contested + 1
  if contested <= 20 then
    for _, value in ipairs({room, keeper, loser}) do contests[#contests + 1] = value end
  end
end

-- Whether a reported room takes its base from a live server that has never reported it. It does if
-- there are clients in it. A place that is reserved there counts as reported against a server that has
-- reported since before it was reserved, and had not named a room of the base by then.
local function is_claim(base, peers)
  if peers == 0 or kept[base.id] then return false end
  if is_first then return true end
  local named = tonumber(call('HGET', K['named:' .. address], base.id) or now)
  for _, room in ipairs(grid.rooms_of(base)) do
    local numbers = call('ZRANGE', K['places:' .. room], 0, -1, 'WITHSCORES')
    for index = 2, #numbers, 2 do
      local held = grid.read(K.places, numbers[index], 5)
      if held and found.since < held[5] and held[5] <= named and held[4] > now then
        kept[base.id] = true
        return false
      end
    end
  end
  return true
end

local has_bases = call('HEXISTS', K.bases, '') == 1

-- The base that a room is in, if the server has it or gets it.
local function find_base(room, peers)
  local id = grid.base_of(room)
  local base = grid.base_at(id)
  if not base then
    if not has_bases then error('LOST bases') end
    return grid.place(id, found)
  end
  if base.server ~= found then
    local other = base.server
    if other.state == LIVE and (base.reported or not is_claim(base, peers)) then return nil end
    contest(room, address, other.address)
    grid.move(base, found)
  end
  return base
end

local function take_in(room, customer, peers, is_again)
  local row = grid.room_at(found, room)
  local rise = peers
  if is_again and row and row[2] >= 0 then return true end
  if row and row[2] >= 0 then
    rise = peers - row[2]
    grid.count_reported(found, row[1], -row[2], -1)
  else
    local base = find_base(room, peers)
    if not base then return false end
    local is_saved = base.reported
    base.reported = true
    row = base.rooms > 0 and grid.room_at(found, room)
    if not row then
      row = grid.add_room(base, room, customer)
    elseif not is_saved then
      grid.save(base)
    end
    grid.count(row[1], 0, 0, -1)
  end
  row[1], row[2] = customer, peers
  grid.count_reported(found, customer, peers, 1)
  if rise > 0 and row[4] > 0 then
    grid.end_oldest(found, room, row, math.min(rise, row[4]))
  end
  grid.save_room(found, room, row)
  return true
end

local function take_in_all(items, foreign, is_again)
  for index = 1, #items, 3 do
    if not take_in(items[index], items[index + 1], items[index + 2], is_again) then
      for offset = 0, 2 do foreign[#foreign + 1] = items[index + offset] end
    end
  end
  return foreign
end

-- The rooms that are another server's, which the server is told to close, and since when each report
-- has named one of their bases.
local function close_foreign(items)
  local foreign, named, names = {}, K['named:' .. address], K['contested:' .. address]
  if #items == 0 and call('EXISTS', named, names) == 0 then return foreign end
  local since, before = call('HGETALL', named), {}
  for index = 1, #since, 2 do before[since[index]] = since[index + 1] end
  local last = {}
  for _, room in ipairs(call('SMEMBERS', names)) do last[room] = true end
  call('DEL', named, names)
  local seen = {}
  for index = 1, #items, 3 do
    local room = items[index]
    local base = not seen[room] and grid.base_at(grid.base_of(room))
    seen[room] = true
    if base and base.server ~= found then
      foreign[#foreign + 1], foreign[#foreign + 2] = room, base.server.address
      if not last[room] then contest(room, base.server.address, address) end
      call('HSET', named, base.id, before[base.id] or now)
      call('SADD', names, room)
    end
  end
  return foreign
end

local foreign = take_in_all(rooms, again, false)
foreign = take_in_all(twice, foreign, true)
if not is_end then return grid.answer(attached, foreign, is_first, contests, contested, {}) end
-- A room of the same base that came later may have won the base.
if #foreign > 0 then foreign = take_in_all(foreign, {}, true) end
for _, room in ipairs(gone) do
  local row = grid.room_at(found, room)
  local base = row and row[2] >= 0 and grid.base_at(grid.base_of(room))
  if base and base.server == found then
    grid.unreport(base, row)
    grid.save_or_forget(base, room, row)
  end
end
if is_first then found.since = now end
foreign = close_foreign(foreign)
local tasks = token ~= '' and call('ZCOUNT', K.awaited, now, '+inf') == 0 and grid.take(address, token, request[16]) or {}
return grid.answer(attached, foreign, is_first, contests, contested, tasks)
