-- Admit clients and find the servers for their rooms (Grid.connect): many Connects in one call.
--
-- Asks: a list of {customer, room, fact keys of the bans, user, peer limit, room limit, limit of demo
--       peers (-1: none), forced server ('': none), fault of `rid` ('': none), a random number,
--       and what the customer uses in other slots: peers, rooms, peers of demo users}.
-- Answers: a list of {'existing', 'new' or 'moved', server, id of its key}, or {'refused', reason,
--       seconds that a ban still lasts}.

local others = {}

-- What a customer uses: peers and reservations, rooms, and the same of demo users' peers.
local function usage(asked)
  local customer = asked[1]
  local peers, rooms, demo = asked[11], asked[12], counters.demo_p + counters.demo_r + asked[13]
  local mine = call('HMGET', is_demo(customer) and K.demo or K.usage,
    'p' .. customer, 'r' .. customer, 'n' .. customer)
  local change = book(used, customer)
  peers = peers + number_in(mine[1]) + number_in(mine[2]) + change.p + change.r
  rooms = rooms + number_in(mine[3]) + change.n
  if not others[customer] then
    local found = {0, 0, 0}
    for index = 2, #KEYS do
      local tag = string.sub(KEYS[index], 1, -5) .. (call('HGET', KEYS[index], 'epoch') or '')
      local theirs = call('HMGET', tag .. (is_demo(customer) and ':demo' or ':usage'),
        'p' .. customer, 'r' .. customer, 'n' .. customer)
      found[1] = found[1] + number_in(theirs[1]) + number_in(theirs[2])
      found[2] = found[2] + number_in(theirs[3])
      local demo_users = call('HMGET', tag .. ':counts', 'demo_p', 'demo_r')
      found[3] = found[3] + number_in(demo_users[1]) + number_in(demo_users[2])
    end
    others[customer] = found
  end
  local found = others[customer]
  return peers + found[1], rooms + found[2], demo + found[3]
end

local function limit_reached(asked, is_new, held)
  if asked[5] < 0 and asked[6] < 0 and asked[7] < 0 then return nil end
  local peers, rooms, demo = usage(asked)
  if asked[5] >= 0 and peers - held >= asked[5] then return 'peer_limit_exceeded' end
  if asked[7] >= 0 and demo - held >= asked[7] then return 'peer_limit_exceeded' end
  if asked[6] >= 0 and is_new and rooms >= asked[6] then return 'room_limit_exceeded' end
end

local function banned(keys)
  for index, raw in ipairs(#keys > 0 and call('HMGET', K.facts, unpack(keys)) or {}) do
    local ban = raw and fact(keys[index])
    if ban and ban[2] and ban[2] > now then
      return {'refused', index % 2 == 1 and 'room_banned' or 'user_banned', ban[2] - now}
    end
  end
end

-- The server with the lowest expected load, or the forced one; else why there is none.
local function choose(forced, pick)
  if not may_place() then return nil, 'store_unavailable' end
  if forced ~= '' then
    local found = server(forced)
    if found and is_open(found) then return found end
    return nil, 'no_server'
  end
  local lowest, ties = math.huge, {}
  for _, address in ipairs(call('ZRANGE', K.open, 0, CANDIDATES - 1)) do
    local found = address ~= '' and server(address)
    local load = found and is_open(found) and expected_load(found) or math.huge
    if load < lowest then lowest, ties = load, {} end
    if load == lowest and load < math.huge then ties[#ties + 1] = address end
  end
  if #ties == 0 then return nil, 'no_server' end
  table.sort(ties)
  return server(ties[pick % #ties + 1])
end

local function connect(asked)
  local room, user = asked[2], asked[4]
  local id = base_of(room)
  local base = base_at(id)
  local row = base and room_at(base.server, room)
  local number = row and row[4] > 0 and call('ZSCORE', K['places:' .. room], user)
  local held = number and read(K.places, number, PLACE)
  -- The same user may be waited for on another customer's account.
  local own = held and held[3] == asked[1] and 1 or 0
  local reason = limit_reached(asked, not row, own) or (asked[9] ~= '' and asked[9])
  if reason then return {'refused', reason, 0} end
  local refusal = banned(asked[3])
  if refusal then return refusal end
  local how = 'existing'
  if not base or base.server.disabled then
    local found, why = choose(asked[8], asked[10])
    if not found then return {'refused', why, 0} end
    if base then
      move(base, found)
      row, how = room_at(found, room), 'moved'
    else
      base, how = place(id, found), 'new'
    end
  end
  if not row then
    row = add_room(base, room, asked[1])
    row[5] = begin_growth(base.server)
    reserve(base, room, row, user, asked[1], now + lifetime, now)
  elseif reserve(base, room, row, user, asked[1], now + lifetime, now) then
    join_growth(row[5])
  end
  save_room(base.server, room, row)
  if how ~= 'existing' then list_open(base.server) end
  return {how, base.server.address, base.server.kid}
end

expire()
sweep_growth()
local answers = {}
for index, asked in ipairs(request[4]) do answers[index] = connect(asked) end
return answer(answers)
