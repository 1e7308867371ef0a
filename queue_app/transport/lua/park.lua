-- An entry is one line of JSON about the envelope and then the envelope's bytes, whatever they are.
local function park(parked, counts, queue, reason, raw)
  local now = redis.call('TIME')
  local about = cjson.encode({at = tonumber(now[1]), queue = queue, reason = reason})
  local entry = about .. '\n' .. raw
  redis.call('LPUSH', parked, entry)
  redis.call('LTRIM', parked, 0, 999)
  redis.call('HINCRBY', counts, queue, 1)
  return entry
end
