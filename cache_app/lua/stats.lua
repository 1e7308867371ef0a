-- Add what one process counted to what all of them did, exactly once.
--
-- KEYS[1]  epoch    string: when the counting began, in microseconds; a reset writes a later one
-- KEYS[2]  counts   hash: alias NUL namespace NUL name → n
-- KEYS[3]  added    string: the number of the last batch that this process added
-- ARGV     epoch that the process knows ("" = none), number of the batch, most fields of the hash, the namespace that
--          takes the rest, seconds that `added` is kept; then alias, namespace, name, n of each row
-- Returns  {epoch, 1 = added (now or before), 0 = not, for it was counted before a reset}

local known, number, most, rest, kept_s = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  -- A new server, or one that lost its data: what is brought now is all there is.
  local now = redis.call('TIME')
  epoch = known ~= '' and known or string.format('%d%06d', now[1], now[2])
  redis.call('SET', KEYS[1], epoch)
elseif known ~= '' and known ~= epoch then
  return {epoch, 0}
end
if redis.call('GET', KEYS[3]) == number then
  return {epoch, 1}
end
local room = most - redis.call('HLEN', KEYS[2])
for at = 6, #ARGV, 4 do
  local field = ARGV[at] .. '\0' .. ARGV[at + 1] .. '\0' .. ARGV[at + 2]
  if redis.call('HEXISTS', KEYS[2], field) == 0 then
    if room <= 0 then
      field = ARGV[at] .. '\0' .. rest .. '\0' .. ARGV[at + 2]
    end
    room = room - 1
  end
  redis.call('HINCRBY', KEYS[2], field, ARGV[at + 3])
end
redis.call('SET', KEYS[3], number, 'EX', kept_s)
return {epoch, 1}
