-- Take tokens from several buckets, all or nothing, in one round trip. The same arithmetic as bucket.py.
--
-- KEYS[i]  one hash per limit, all with one {hash tag}:
--            n  tokens left (a double, 17 significant digits)
--            t  server time of that level, in microseconds
-- ARGV[1]  cost in tokens
-- ARGV[2i], ARGV[2i + 1]  rate (tokens per second) and capacity (tokens) of limit i
--
-- Returns {admitted 0 or 1, server time in microseconds, level of limit 1, level of limit 2, ...}; times and levels are
-- strings, as an integer reply would truncate them. A refusal writes nothing. A bucket that would be full again is
-- forgotten by its expiry: absent means full.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local cost = tonumber(ARGV[1])
local admitted = 1
local levels, stamps = {}, {}

for i, key in ipairs(KEYS) do
  local rate, capacity = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local stored = redis.call('HMGET', key, 'n', 't')
  local level, at = capacity, now
  if stored[1] and stored[2] then
    local before = tonumber(stored[2])
    at = math.max(now, before) -- the clock may step back at a failover
    level = math.min(capacity, tonumber(stored[1]) + (at - before) / 1000000 * rate)
  end
  if level < cost then admitted = 0 end
  levels[i], stamps[i] = level, at
end

local reply = {admitted, string.format('%.0f', now)}
for i, key in ipairs(KEYS) do
  if admitted == 1 then
    local rate, capacity = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    levels[i] = levels[i] - cost
    redis.call('HSET', key, 'n', string.format('%.17g', levels[i]), 't', string.format('%.0f', stamps[i]))
    local full_us = stamps[i] - now + (capacity - levels[i]) / rate * 1000000
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(full_us / 1000) + 1000))
  end
  reply[i + 2] = string.format('%.17g', levels[i])
end
return reply
