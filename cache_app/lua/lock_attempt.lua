-- Takes the lock, or says when to look again.
--
-- ARGV[4]  lease, in milliseconds
-- ARGV[5]  1: only in the order of arrival
-- ARGV[6]  arrival of this token, in microseconds; 0: this is its first attempt
-- ARGV[7]  1: it waits, so it gets a place in the queue
-- reply    {1, fence}, or {0, ms until it is worth looking again, arrival, how many stand before it}
local token, arrival, reserved = ARGV[1], tonumber(ARGV[6]), nil

local function is_next()
  if ARGV[5] ~= '1' then return true end
  local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if not first[1] or first[1] == token or (arrival > 0 and arrival < tonumber(first[2])) then return true end
  if redis.call('EXISTS', KEYS[1]) == 1 then return false end
  local told, left = wake() -- the lease ended without a release, so nobody has told the first one
  reserved = left
  return not told or told == token
end

local function granted()
  local seen = redis.call('MGET', KEYS[2], KEYS[5])
  if seen[2] then
    redis.call('DEL', KEYS[1])
    wake()
    return {0, 0, 0, 0}
  end
  if arrival > 0 then redis.call('ZREM', KEYS[3], token) end
  -- The clock needs no key that is kept for ever per name, and goes on rising after a restart without data.
  local fence = math.max((tonumber(seen[1]) or 0) + 1, clock())
  redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', 3600000)
  return {1, fence}
end

if is_next() and redis.call('SET', KEYS[1], token, 'NX', 'PX', ARGV[4]) then return granted() end
if redis.call('GET', KEYS[1]) == token then -- granted before, but the answer was lost with its connection
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {1, tonumber(redis.call('GET', KEYS[2]) or clock())}
end

local left = reserved and math.ceil(reserved / 1000) or redis.call('PTTL', KEYS[1]) + 1
if ARGV[7] ~= '1' then return {0, left, 0, 0} end
if arrival == 0 then -- a script's clock stands still, and counts whole milliseconds
  local last = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
  arrival = math.max(clock(), (tonumber(last[2]) or 0) + 1)
end
redis.call('ZADD', KEYS[3], string.format('%.0f', arrival), token)
redis.call('PEXPIRE', KEYS[3], KEPT_MS)
local told = redis.call('GET', KEYS[4])
if told and string.sub(told, 1, #token + 1) == token .. ' ' then redis.call('DEL', KEYS[4]) end -- it came
return {0, left, arrival, redis.call('ZRANK', KEYS[3], token)}
