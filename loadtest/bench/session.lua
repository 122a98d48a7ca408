-- GET by session, each request by the next one. BENCH_TOKENS: a file with a token a line, of which each of two
-- threads takes every other one, BENCH_EACH of them. BENCH_IDS: a file with an item's id a line; without it, an
-- item that cannot be, which is not found without a look into the database. BENCH_BOOKMARK is a header.
local requests, at = {}, 0

function setup(thread)
  count = (count or 0) + 1
  thread:set("mine", count)
end

function init()
  local ids = {}
  if os.getenv("BENCH_IDS") then
    for id in io.lines(os.getenv("BENCH_IDS")) do
      ids[#ids + 1] = id
    end
  else
    ids[1] = "none"
  end
  wrk.headers["Godwit-Bookmark"] = os.getenv("BENCH_BOOKMARK")
  local each, line = tonumber(os.getenv("BENCH_EACH")), 0
  for token in io.lines(os.getenv("BENCH_TOKENS")) do
    line = line + 1
    if line % 2 == mine % 2 then
      wrk.headers["Authorization"] = "Bearer " .. token
      requests[#requests + 1] = wrk.format("GET", "/v1/collections/bench/items/" .. ids[line % #ids + 1])
    end
    if #requests == each then
      break
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
