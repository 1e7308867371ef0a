-- A waiter gives up: what it may have been granted is freed, and the turn that it may have had goes to the next.
-- The mark outlives any attempt of this token that is still under way on another connection.
redis.call('SET', KEYS[5], 1, 'PX', 10000)
redis.call('ZREM', KEYS[3], ARGV[1])
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] then redis.call('DEL', KEYS[1]) end
if not owner or owner == ARGV[1] then wake() end
return 1
