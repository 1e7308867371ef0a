-- KEYS unacked_index unacked parked parked_counts   ARGV tag queue reason envelope
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
park(KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[4])
return 1
