-- POST the same item again and again.
function init()
  wrk.method = "POST"
  wrk.path = "/v1/collections/created/items"
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = os.getenv("BENCH_BODY")
  once = wrk.format()
end

function request()
  return once
end
