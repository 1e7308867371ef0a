-- Take tokens from several buckets, all or nothing, in one round trip. The same arithmetic as bucket.py, where the
-- rules are explained.
--
-- KEYS[i]  one hash per limit, all with one {hash tag}:
--            n  tokens left (a double, 17 significant digits)
--            t  server time of that level, in microseconds
--            h  tokens that processes hold in leases, at most; they are out of the bucket, but still in somebody's hand
--            l  server time at which the last of these leases is over for certain
-- ARGV[1]  need: tokens without which nothing is taken (0: take no more than a lease, or only report)
-- ARGV[2]  queue: tokens wanted at once, need included; what is there of it is granted, the need and then units
-- ARGV[3]  unit: tokens of the cheapest request that waits
-- ARGV[4]  lease: tokens to hold on top, granted whole or not at all
-- ARGV[5]  spare: tokens that must be left in every bucket after a lease
-- ARGV[6]  settled: tokens of earlier leases that the caller no longer holds, spent or handed back
-- ARGV[7]  back: tokens handed back, unspent
-- ARGV[8]  server time of the caller's last grant, in microseconds
-- ARGV[7 + 2i], ARGV[8 + 2i]  rate (tokens per second) and capacity (tokens) of limit i
--
-- Returns {admitted 0 or 1, granted, server time in microseconds, level of limit 1, level of limit 2, ...}; all but the
-- first are strings, as an integer reply would truncate them. A refusal takes nothing. A bucket that would be full
-- again is forgotten by its expiry: absent means full.

local HOLD_US, REPORT_US, BUDGET, SET_US = 2000000, 500000, 0.1, 10000000

local function filled(tokens, rate, ceiling, us)
  if us <= 0 or tokens >= ceiling then return tokens end
  return math.min(ceiling, tokens + us / 1000000 * rate)
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local need, queue, unit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, spare = tonumber(ARGV[4]), tonumber(ARGV[5])
local settled, back = tonumber(ARGV[6]), tonumber(ARGV[7])
local reported = tonumber(ARGV[8])
if now > reported + REPORT_US or reported > now + SET_US then settled, back = 0, 0 end

local levels, stamps, held, over, rates, capacities = {}, {}, {}, {}, {}, {}
local room = math.huge
for i, key in ipairs(KEYS) do
  local rate, capacity = tonumber(ARGV[7 + 2 * i]), tonumber(ARGV[8 + 2 * i])
  local level, at, h, l = capacity, now, 0, 0
  local stored = redis.call('HMGET', key, 'n', 't', 'h', 'l')
  if stored[1] and stored[2] then
    local before = tonumber(stored[2])
    h, l = tonumber(stored[3] or 0), tonumber(stored[4] or 0)
    if before > now + SET_US then before, l = now, math.min(l, now + HOLD_US) end -- it was set: nobody waits for it
    at = math.max(now, before) -- the clock may step back at a failover
    level = math.min(tonumber(stored[1]), capacity)
    level = filled(level, rate, capacity - h, math.min(at, l) - before)
    level = filled(level, rate, capacity, at - math.max(before, l))
    if at >= l then h = 0 end
  end
  h = math.max(0, h - settled)
  level = math.max(level, math.min(capacity - h, level + back))
  room = math.min(room, level)
  levels[i], stamps[i], held[i], over[i], rates[i], capacities[i] = level, at, h, l, rate, capacity
end

local admitted, granted, leased = 1, 0, 0
if room < need then
  admitted = 0
else
  if need > 0 then granted = need + math.floor((math.min(queue, room) - need) / unit) * unit end
  if lease > 0 and granted >= queue and room - granted - lease >= spare then
    leased = lease
    for i = 1, #KEYS do
      if held[i] + lease > capacities[i] * BUDGET then leased = 0 end
    end
  end
  granted = granted + leased
end

local reply = {admitted, string.format('%.17g', granted), string.format('%.0f', now)}
for i, key in ipairs(KEYS) do
  if granted > 0 or settled > 0 or back > 0 then
    levels[i] = levels[i] - granted
    held[i] = held[i] + leased
    if held[i] > 0 and (leased > 0 or settled > 0) then over[i] = stamps[i] + HOLD_US end
    redis.call('HSET', key, 'n', string.format('%.17g', levels[i]), 't', string.format('%.0f', stamps[i]),
      'h', string.format('%.17g', held[i]), 'l', string.format('%.0f', over[i]))
    local full_us = math.max((capacities[i] - levels[i]) / rates[i] * 1000000, over[i] - stamps[i])
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((stamps[i] - now + full_us) / 1000) + 1000))
  end
  reply[i + 3] = string.format('%.17g', levels[i])
end
return reply
