-- For wrk, with one thread: what was answered, as a line of JSON at the end.

local thread
local fields = {"made", "twice", "lowest", "highest", "shed", "other"}

function setup(one)
  thread = one
end

function init()
  made, twice, lowest, highest, shed, other = 0, 0, math.huge, 0, 0, 0
  seen = {}
end

function response(status, headers)
  if status == 200 then
    local index = tonumber(string.match(headers["etag"], "%d+"))
    made = made + 1
    if seen[index] then twice = twice + 1 end
    seen[index] = true
    lowest, highest = math.min(lowest, index), math.max(highest, index)
  elseif status == 503 and headers["retry-after"] == "1" then
    shed = shed + 1
  else
    other = other + 1
  end
end

function done(summary, latency)
  local said = {}
  for _, field in ipairs(fields) do
    said[#said + 1] = string.format('"%s": %d', field, thread:get(field))
  end
  said[#said + 1] = string.format('"seconds": %f', summary.duration / 1e6)
  io.write("{" .. table.concat(said, ", ") .. "}\n")
end
