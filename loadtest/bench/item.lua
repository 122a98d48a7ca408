-- GET items by id, in turns. BENCH_IDS: a file with an id a line; the rest are headers.
local requests, at = {}, 0

function setup(thread)
  threads = (threads or 0) + 1
  thread:set("first", threads * 977)
end

function init()
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
  wrk.headers["Godwit-Bookmark"] = os.getenv("BENCH_BOOKMARK")
  for id in io.lines(os.getenv("BENCH_IDS")) do
    requests[#requests + 1] = wrk.format("GET", "/v1/collections/bench/items/" .. id)
  end
  at = first
end

function request()
  at = at + 1
  return requests[at % #requests + 1]
end
