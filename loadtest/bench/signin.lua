-- Signs in to each account of BENCH_ACCOUNTS in turns, with the right password and with a wrong one; one thread.
local requests, at = {}, 0
right, wrong, other = 0, 0, 0

function setup(thread)
  theirs = thread
end

function init()
  wrk.headers["Content-Type"] = "application/json"
  local tenant, password = os.getenv("BENCH_TENANT"), os.getenv("BENCH_PASSWORD")
  for email in io.lines(os.getenv("BENCH_ACCOUNTS")) do
    for _, shown in ipairs({ password, "not-" .. password }) do
      local body = string.format('{"tenant":"%s","email":"%s","password":"%s"}', tenant, email, shown)
      requests[#requests + 1] = wrk.format("POST", "/v1/session", nil, body)
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function response(status)
  if status == 201 then
    right = right + 1
  elseif status == 401 then
    wrong = wrong + 1
  else
    other = other + 1
  end
end

function done()
  local count = function(name) return theirs:get(name) end
  print(string.format("right %d, wrong %d, other %d", count("right"), count("wrong"), count("other")))
end
