-- KEYS parked list wake   ARGV entry envelope   Once: a second call finds the entry gone.
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
wake(KEYS[3])
return 1
