-- wrk's part: wrk … -s wrk.lua URL -- TOKENS KIND [unread]
-- TOKENS: a file with a token a line. KIND: what to ask for, see "kinds".
-- unread: of answers, look at the status alone, which costs the load less.
-- Prints "RESULT requests seconds p50 p99 errors", times in milliseconds.

local kinds = {
  connect = {
    method = "POST", path = "/", wanted = '"token"',
    body = '{"jsonrpc":"2.0","method":"Connect","params":{},"id":1}',
  },
  turn = { method = "GET", path = "/turn", wanted = '"credential"' },
}

local kind, tokens, position = nil, {}, 0
local worker

-- Globals, for done() reads them from another Lua state.
bad = 0
unread = false

function setup(thread)
  worker = thread
end

local function look(status, headers, body)
  if status ~= 200 or not body:find(kind.wanted, 1, true) then
    bad = bad + 1
    if bad == 1 then
      io.stderr:write("wrk: first bad answer: ", status, " ", body:sub(1, 300), "\n")
    end
  end
end

function init(arguments)
  kind = kinds[arguments[2]]
  unread = arguments[3] == "unread"
  if not unread then
    response = look
  end
  for line in io.lines(arguments[1]) do
    tokens[#tokens + 1] = "Bearer " .. line
  end
end

function request()
  position = position % #tokens + 1
  local headers = { Authorization = tokens[position] }
  if kind.body then
    headers["Content-Type"] = "application/json"
  end
  return wrk.format(kind.method, kind.path, headers, kind.body)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local wrong = worker:get("unread") and errors.status or worker:get("bad")
  print(string.format(
    "RESULT %d %.6f %.3f %.3f %d",
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    wrong + errors.connect + errors.read + errors.write + errors.timeout))
end
