-- Frees the lock if the token is its owner's, and tells the next one. Reply: 1 freed, 0 it was not this owner's any more.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
wake()
return 1
