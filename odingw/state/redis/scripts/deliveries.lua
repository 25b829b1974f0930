-- Deliveries: tasks in flight to a server, which a gateway has taken along in a reply.
-- A flight: gateway, token, tasks.

-- How a flight ended: 'arrived', 'returned', or 'recalled', which is not held against its tasks.
function grid.end_flight(address, flight, how)
  call('HDEL', K.flights, address)
  local dropped, homes, again = {}, {}, {}
  for _, task in ipairs(flight[3]) do
    local row = grid.task(task)
    if row and how ~= 'arrived' and not homes[row[2]] then homes[row[2]] = grid.home_of(row[2]) end
  end
  for _, task in ipairs(flight[3]) do
    local row = grid.task(task)
    if row then
      row[5] = row[5] + (how == 'returned' and 1 or 0)
      row[6] = 0
      if how == 'arrived' or row[5] > 3 then
        if how ~= 'arrived' then dropped[#dropped + 1] = task end
        grid.drop_task(task, row)
      else
        call('HSET', K.tasks, task, pack(row))
      end
    end
  end
  for id, home in pairs(homes) do grid.bring_tasks(id, home) end
  return dropped
end

-- Put in flight what may be sent now: {task, times returned, body} of each. A task that came back too
-- often goes alone. Nobody ends a flight whose gateway has no lease, or does not know of it: it got no answer.
function grid.take(address, token, known)
  local flight = grid.read(K.flights, address, 3)
  if flight then
    local flies = flight[1] ~= gateway and grid.number(call('ZSCORE', TAG .. 'gateways', flight[1])) > now
    for _, mine in ipairs(known) do flies = flies or mine == flight[2] end
    if flies then return {} end
    grid.end_flight(address, flight, 'recalled')
  end
  local taken, names, size = {}, {}, 0
  for _, task in ipairs(grid.tasks_in(K.queue, address)) do
    local row = grid.task(task)
    if row then
      size = size + row[4]
      if #taken > 0 and (row[5] >= 3 or size > 1048576) then break end
      row[6] = 1
      call('HSET', K.tasks, task, pack(row))
      names[#names + 1], taken[#taken + 1] = task, {task, row[5], row[3], row[7]}
      if row[5] >= 3 then break end
    end
  end
  if #taken > 0 then call('HSET', K.flights, address, pack({gateway, token, names})) end
  return taken
end
