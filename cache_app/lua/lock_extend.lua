-- KEYS[1]  lock. ARGV: token, lease in milliseconds. Reply: 1 it now ends then, 0 it is not this owner's any more.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
