-- KEYS unacked_index unacked list wake   ARGV tag envelope   Once: whoever finds the tag gone has nothing to give back.
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
wake(KEYS[4])
return 1
