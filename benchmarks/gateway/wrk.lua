-- wrk -s wrk.lua URL -- FILE: the file's requests in turn; the outcome as one line of JSON. A line is `path token`, and
-- perhaps a number, which goes along as a header.

local requests, turn = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local path, token, number = line:match("^(%S+) (%S+) ?(%S*)$")
    local headers = { ["Authorization"] = "Bearer " .. token }
    if number ~= "" then headers["X-Number"] = number end
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nOUTCOME {"answered": %d, "refused": %d, "broken": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99)
  ))
end
