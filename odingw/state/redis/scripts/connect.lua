-- Admit clients and find the servers for their rooms (Grid.connect): many Connects in one call.
--
-- Asks: a list of {customer, room, its base, fact keys of the bans, user, peer limit, room limit, limit of
--       demo peers (-1: none), forced server ('': none), fault of `rid` ('': none), and what the customer
--       uses in other slots: peers, rooms, peers of demo users}; and a random number.
-- Answers: a list of {'existing', 'new' or 'moved', server, id of its key}, or {'refused', reason,
--       seconds that a ban still lasts}.

local others = {}

local has_bans = call('ZCARD', K.ends) > 1

-- What a customer uses: peers and reservations, rooms, and the same of demo users' peers.
local function usage(asked)
  local customer = asked[1]
  local found = others[customer]
  if not found then
    found = {0, 0, 0}
    others[customer] = found
    for index, key in ipairs(KEYS) do
      local tag = string.sub(key, 1, -5) .. (index == 1 and epoch or call('HGET', key, 'epoch') or '')
      local counts = call('HMGET', tag .. (grid.is_demo(customer) and ':demo' or ':usage'),
        'p' .. customer, 'r' .. customer, 'n' .. customer)
      found[1] = found[1] + grid.number(counts[1]) + grid.number(counts[2])
      found[2] = found[2] + grid.number(counts[3])
      local raw = index > 1 and asked[8] >= 0 and call('HGET', tag .. ':counts', 'row')
      local all = raw and cmsgpack.unpack(raw)
      if all then found[3] = found[3] + all[10] + all[11] end
    end
  end
  local change = grid.book(used, customer)
  return found[1] + change.p + change.r + asked[11], found[2] + change.n + asked[12],
    found[3] + counters.demo_p + counters.demo_r + asked[13]
end

local function limit_reached(asked, is_new, held)
  if asked[6] < 0 and asked[7] < 0 and asked[8] < 0 then return nil end
  local peers, rooms, demo = usage(asked)
  if asked[6] >= 0 and peers - held >= asked[6] then return 'peer_limit_exceeded' end
  if asked[8] >= 0 and demo - held >= asked[8] then return 'peer_limit_exceeded' end
  if asked[7] >= 0 and is_new and rooms >= asked[7] then return 'room_limit_exceeded' end
end

local function banned(keys)
  for index, raw in ipairs(#keys > 0 and call('HMGET', K.facts, unpack(keys)) or {}) do
    local ban = raw and grid.fact(keys[index])
    if ban and ban[2] and ban[2] > now then
      return {'refused', index % 2 == 1 and 'room_banned' or 'user_banned', ban[2] - now}
    end
  end
end

-- The server with the lowest expected load, or the forced one; else why there is none.
local function choose(forced, pick)
  if not grid.may_place() then return nil, 'store_unavailable' end
  if forced ~= '' then
    local found = grid.server(forced)
    if found and found.open then return found end
    return nil, 'no_server'
  end
  local lowest, ties = math.huge, {}
  for _, address in ipairs(call('ZRANGE', K.open, 0, CANDIDATES - 1)) do
    local found = address ~= '' and grid.server(address)
    local load = found and found.open and grid.expected_load(found) or math.huge
    if load < lowest then lowest, ties = load, {} end
    if load == lowest and load < math.huge then ties[#ties + 1] = address end
  end
  if #ties == 0 then return nil, 'no_server' end
  table.sort(ties)
  return grid.server(ties[pick % #ties + 1])
end

-- Foresee how a new room grows (GrowthModel.begin).
local function begin_growth(found, room, row)
  -- As in Python, halves are rounded to even numbers.
  local whole = math.floor(grid.mean)
  local rest = grid.mean - whole
  if rest > 0.5 or (rest == 0.5 and whole % 2 == 1) then whole = whole + 1 end
  row[5], row[6], row[7] = grid.next_number('growing'), math.max(0, whole - 1), 1
  grid.tally(found, 'g', row[6])
  call('HSET', K.growth, row[5], pack({now + GROWTH_TIME, room, '', 0, 0, 1}))
end

-- A further client uses up a foreseen place (GrowthModel.join).
local function join_growth(found, row)
  row[7] = row[7] + 1
  if row[6] > 0 then
    row[6] = row[6] - 1
    grid.tally(found, 'g', -1)
  end
end

local function connect(asked, pick)
  local customer, room, user = asked[1], asked[2], asked[5]
  local base = grid.base_at(asked[3])
  local row = base and grid.room_at(base.server, room)
  local number, held = grid.held(room, row, user)
  -- The same user may be waited for on another customer's account.
  local own = held and held[3] == customer and 1 or 0
  local reason = limit_reached(asked, not row, own) or (asked[10] ~= '' and asked[10])
  if reason then return {'refused', reason, 0} end
  local refusal = has_bans and banned(asked[4])
  if refusal then return refusal end
  local how = 'existing'
  if not base or base.server.state ~= LIVE then
    local found, why = choose(asked[9], pick)
    if not found then return {'refused', why, 0} end
    if base then
      grid.move(base, found)
      row, how = grid.room_at(found, room), 'moved'
    else
      base, how = grid.place(asked[3], found), 'new'
    end
  end
  local found = base.server
  if not row then
    row = grid.add_room(base, room, customer)
    begin_growth(found, room, row)
  elseif not held and grid.is_growing(row) and now < row[3] + GROWTH_TIME then
    join_growth(found, row)
  end
  grid.reserve(found, room, row, user, customer, now + settings[1], now, number, held)
  if how ~= 'existing' then grid.list_open(found) end
  return {how, found.address, found.kid}
end

grid.expire()
grid.sweep_growth()
local answers = {}
for index, asked in ipairs(request[4]) do answers[index] = connect(asked, request[5] + index - 1) end
return grid.answer(answers)
