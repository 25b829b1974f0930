-- Take up work after nobody was there (Grid.resume), in steps: no server is blamed for it, tasks whose
-- delivery nobody saw the end of are sent again, and who was sent to a server meanwhile may still come:
-- every reservation begins anew.
--
-- Asks: number of the reservation to go on with (0: at the start), whether the gateways themselves are
--       new; if not, only servers are excused.
-- Answers: the number to go on with; 0: done.

local number, is_new = request[4], request[5]
if number == 0 then
  for _, address in ipairs(call('ZRANGE', K.heard, 0, -1)) do
    local found = address ~= '' and grid.server(address)
    if found then
      call('ZADD', K.heard, now, address)
      grid.touch(found).since = -1
      if is_new then
        call('HDEL', K.tallies, 'g' .. address)
        call('DEL', K['named:' .. address], K['contested:' .. address])
      end
    end
  end
  grid.set('ticked', 0)
  if not is_new then return grid.answer(0) end
  grid.set('grown', counters.growing)
  call('DEL', K.growth)
  call('HSET', K.growth, '', '')
  local flights = call('HKEYS', K.flights)
  for _, address in ipairs(flights) do
    local flight = address ~= '' and grid.read(K.flights, address, 3)
    if flight then grid.end_flight(address, flight, 'recalled') end
  end
  number = counters.first
end
local last = math.min(counters.last, number + 2 * SWEEP)
while number <= last do
  local held = grid.read(K.places, number, 5)
  if held then
    held[4], held[5] = now + settings[1], 0
    call('HSET', K.places, number, pack(held))
  end
  number = number + 1
end
return grid.answer(number <= counters.last and number or 0)
