-- Adds what one process counted in one minute to that minute and its hour, once: a batch that is sent again, as its
-- answer got lost, changes nothing.
--
-- KEYS[1]  string  the number of the process's last batch that was added
-- KEYS[2]  hash    of the minute: '["route","consumer",class of status]' -> requests
-- KEYS[3]  hash    of the minute: route -> '{"bucket":requests,…}', the latency by gateway/latency.py's FINE_S
-- KEYS[4], KEYS[5] likewise of the hour
-- ARGV[1]  number of the batch, from 1
-- ARGV[2]  JSON: [[field, field under which it is counted when the hash is full, requests], …]
-- ARGV[3]  JSON: {route: {bucket: requests, …}, …}
-- ARGV[4], ARGV[5], ARGV[6]  of the minute: when it expires (seconds since the epoch), most fields of its two hashes
-- ARGV[7], ARGV[8], ARGV[9]  likewise of the hour
-- Returns 1, or 0 for a batch that had been added.

if tonumber(ARGV[1]) <= tonumber(redis.call('GET', KEYS[1]) or '0') then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 86400)

local function add_counts(key, rows, most)
  local size = redis.call('HLEN', key)
  for _, row in ipairs(rows) do
    local field = row[1]
    if size >= most and redis.call('HEXISTS', key, field) == 0 then
      field = row[2]
    end
    if redis.call('HINCRBY', key, field, row[3]) == row[3] then
      size = size + 1
    end
  end
end

local function add_times(key, routes, most)
  local size = redis.call('HLEN', key)
  for route, buckets in pairs(routes) do
    local known = redis.call('HGET', key, route)
    if not known and size >= most then
      route = 'other'
      known = redis.call('HGET', key, route)
    end
    local total = known and cjson.decode(known) or {}
    for bucket, count in pairs(buckets) do
      total[bucket] = (total[bucket] or 0) + count
    end
    redis.call('HSET', key, route, cjson.encode(total))
    if not known then
      size = size + 1
    end
  end
end

local rows, routes = cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
for level = 0, 1 do
  local counts, times, at = KEYS[2 + 2 * level], KEYS[3 + 2 * level], 4 + 3 * level
  if #rows > 0 then
    add_counts(counts, rows, tonumber(ARGV[at + 1]))
    redis.call('EXPIREAT', counts, ARGV[at])
  end
  if next(routes) then
    add_times(times, routes, tonumber(ARGV[at + 2]))
    redis.call('EXPIREAT', times, ARGV[at])
  end
end
return 1
