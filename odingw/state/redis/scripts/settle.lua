-- Take tasks for a server, or say how a delivery ended.
--
-- Asks: 'take', server, token; or 'arrived', 'returned' or 'recalled', server, token, tasks.
-- Answers: the tasks taken, or those that came back too often.

local what, address, token = request[4], request[5], request[6]
if what == 'take' then
  return answer(may_place() and server(address) and take(address, token) or {})
end
local flight = read(K.flights, address, FLIGHT)
if flight and flight[2] == token then return answer(end_flight(address, flight, what)) end
-- The flight is lost, or was taken for one of a gateway that is gone. What arrived is not sent again.
for _, task in ipairs(what == 'arrived' and request[7] or {}) do
  local row = read(K.tasks, task, TASK)
  if row and row[6] == 0 then drop_task(task, row) end
end
return answer({})
