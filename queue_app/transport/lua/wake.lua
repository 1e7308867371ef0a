-- One token makes one idle consumer claim; a second one would wake another for nothing. It expires so that a queue which
-- nobody reads any more leaves no key behind: a consumer that starts claims first and needs no token.
local function wake(key)
  if redis.call('LLEN', key) == 0 then
    redis.call('LPUSH', key, '1')
    redis.call('EXPIRE', key, 60)
  end
end
