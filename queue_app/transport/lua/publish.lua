-- KEYS wake [list]   ARGV envelope*   Without a list: only the token.
if KEYS[2] then
  redis.call('LPUSH', KEYS[2], unpack(ARGV))
end
wake(KEYS[1])
