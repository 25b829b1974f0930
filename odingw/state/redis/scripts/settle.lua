-- Take tasks for a server, or say how a delivery ended.
--
-- Asks: 'take', server, token, tokens of this gateway's flights to it; or 'arrived' or 'returned', server, token, tasks.
-- Answers: the tasks taken, or those that came back too often.

local what, address, token = request[4], request[5], request[6]
if what == 'take' then
  return grid.answer(grid.may_place() and grid.server(address) and grid.take(address, token, request[7]) or {})
end
local flight = grid.read(K.flights, address, 3)
if flight and flight[2] == token then return grid.answer(grid.end_flight(address, flight, what)) end
-- The flight is lost, or was taken for one of a gateway that is gone. What arrived is not sent again.
for _, task in ipairs(what == 'arrived' and request[7] or {}) do
  local row = grid.task(task)
  if row and row[6] == 0 then grid.drop_task(task, row) end
end
return grid.answer({})
