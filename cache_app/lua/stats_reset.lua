-- Begin the totals anew.
--
-- KEYS[1] epoch, KEYS[2] counts, KEYS[3] slow; as in stats.lua
-- Returns the new epoch: what processes counted under another one is not added any more.

local now = redis.call('TIME')
local epoch = string.format('%d%06d', now[1], now[2])
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SET', KEYS[1], epoch)
return epoch
