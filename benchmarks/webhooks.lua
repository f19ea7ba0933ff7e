-- What wrk sends: each request of the file once, in order, as its number of bytes on a line and then the bytes.

local requests, last = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local size = file:read("*n")
  while size do
    file:read(1)
    requests[#requests + 1] = file:read(size)
    size = file:read("*n")
  end
  file:close()
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  print(string.format('{"answered": %d, "failed": %d, "wall_us": %d, "p50_us": %d}',
    summary.requests, failed, summary.duration, latency:percentile(50)))
end
