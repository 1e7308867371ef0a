-- What the lock scripts share. Each token is `process:number`; a process listens on the channel that ends in its name.
--
-- KEYS[1]  lock    string: the owner's token; expires with the lease
-- KEYS[2]  fence   string: the number of the last grant, in microseconds of the server's clock or one more than before
-- KEYS[3]  queue   sorted set: token of each waiter by its arrival, in microseconds
-- KEYS[4]  told    string: `token time`, the waiter that was last told to come and has not been seen since
-- KEYS[5]  gone    string, one per token: this token has left, and must not be granted any more
-- ARGV[1]  token
-- ARGV[2]  channel: what the channels of all processes begin with
-- ARGV[3]  1: PUBLISH says how many heard it; 0: it cannot know (in a cluster a waiter may listen on any node)

local GRACE_US, KEPT_MS = 500000, 30000

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Its waiters come back by themselves, in their old places, if the process is alive after all.
local function forget(process)
  local stem = process .. ':'
  for _, token in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if string.sub(token, 1, #stem) == stem then redis.call('ZREM', KEYS[3], token) end
  end
end

-- Tells the first waiter to come, and no other. Returns it, and for how many microseconds the turn is still its own; a
-- waiter that was told and did not come in time, or whose process is not there, loses the turn to the next.
local function wake()
  local first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  local now = first and clock()
  while first do
    local process = string.match(first, '^[^:]*')
    local told, since = string.match(redis.call('GET', KEYS[4]) or '', '^(%S+) (%d+)$')
    if told == first then
      local left = GRACE_US - (now - since)
      if left > 0 then return first, left end
      forget(process)
    elseif redis.call('PUBLISH', ARGV[2] .. process, first) == 0 and ARGV[3] == '1' then
      forget(process)
    else
      redis.call('SET', KEYS[4], first .. ' ' .. string.format('%.0f', now), 'PX', KEPT_MS)
      return first, GRACE_US
    end
    first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  end
end
