-- KEYS unacked_index unacked parked parked_counts [given_up]   ARGV tag queue reason envelope
-- given_up: it could be read, and is to be told to whoever keeps the books of its task.
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
local entry = park(KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[4])
if KEYS[5] then
  redis.call('LPUSH', KEYS[5], entry)
  redis.call('LTRIM', KEYS[5], 0, 999)
end
return 1
