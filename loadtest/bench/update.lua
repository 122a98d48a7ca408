-- PATCH items by id, each thread its own, with the ETag of the item's last answer. Thousands of items
-- to a few connections: none is in flight twice.
local ids, etags, at, round = {}, {}, 0, 0

function setup(thread)
  count = (count or 0) + 1
  thread:set("mine", count)
end

function init()
  local line = 0
  for text in io.lines(os.getenv("BENCH_ETAGS")) do
    line = line + 1
    if line % 2 == mine % 2 then
      local id, etag = text:match("(%S+) (%S+)")
      ids[#ids + 1], etags[id] = id, etag
    end
  end
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
  wrk.headers["Content-Type"] = "application/merge-patch+json"
end

function request()
  at = at % #ids + 1
  round = round + 1
  wrk.headers["If-Match"] = etags[ids[at]]
  local path = "/v1/collections/bench/items/" .. ids[at]
  return wrk.format("PATCH", path, nil, '{"population":' .. round .. "}")
end

function response(status, headers, body)
  local id = body:match('"id":%s*"([^"]*)"')
  local etag = headers["ETag"] or headers["etag"]
  if id and etag then
    etags[id] = etag
  end
end
