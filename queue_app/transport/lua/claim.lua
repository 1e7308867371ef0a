-- Moves messages from the lists of a consumer's queues into `unacked`, so that each is always in exactly one of the two.
--
-- KEYS   unacked_index unacked parked parked_counts wake*nq list*(steps*nq), the most urgent step first
-- ARGV   want nq share queue*nq
-- share  1: the queues of one step share what is wanted; 0: the first queue may have it all
-- reply  taken, [number of the list, counted from 0; tag; envelope]*   taken counts what was parked as well
--
-- RPOP comes before every write that a full server refuses (ZADD, HSET, LPUSH): a script that has written may go on, so a
-- server that takes no new messages can still be emptied.
local want, nq, share = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local first = 4 + nq
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local reply = {0}

-- Reading the whole envelope is needed only when a header bears the same name or the tag has an escape in it.
local function tag_of(raw)
  local at = string.find(raw, '"delivery_tag"', 1, true)
  if not at then return nil end
  if not string.find(raw, '"delivery_tag"', at + 1, true) then
    local tag = string.match(raw, '^"delivery_tag"%s*:%s*"([^"\\]+)"', at)
    if tag then return tag end
  end
  local readable, envelope = pcall(cjson.decode, raw)
  local properties = readable and type(envelope) == 'table' and envelope.properties
  local tag = type(properties) == 'table' and properties.delivery_tag
  local kind = type(tag)
  return (kind == 'string' or kind == 'number') and tag ~= '' and tostring(tag) or nil
end

local function take(list, limit)
  local items = redis.call('RPOP', KEYS[first + list + 1], limit)
  if not items then return 0 end
  local queue = ARGV[4 + list % nq]
  local tail = ', "", ' .. cjson.encode(queue) .. ']'
  local index, hash = {}, {}
  for _, raw in ipairs(items) do
    local tag = tag_of(raw)
    if tag then
      index[#index + 1] = now; index[#index + 1] = tag
      hash[#hash + 1] = tag; hash[#hash + 1] = '[' .. raw .. tail
      reply[#reply + 1] = list; reply[#reply + 1] = tag; reply[#reply + 1] = raw
    else
      park(KEYS[3], KEYS[4], queue, 'no delivery tag', raw)
    end
  end
  if #index > 0 then
    redis.call('ZADD', KEYS[1], unpack(index))
    redis.call('HSET', KEYS[2], unpack(hash))
  end
  reply[1] = reply[1] + #items
  return #items
end

for start = 0, #KEYS - first - 1, nq do
  local limit, more = want, {}
  if share then limit = math.max(1, math.floor(want / nq)) end
  for list = start, start + nq - 1 do
    if want > 0 then
      local asked = math.min(limit, want)
      local taken = take(list, asked)
      want = want - taken
      more[list] = taken == asked
    end
  end
  for list = start, start + nq - 1 do
    if want > 0 and more[list] then want = want - take(list, want) end
  end
end

-- More work than this consumer takes: hand the wake-up on.
if want == 0 then
  for list = 0, #KEYS - first - 1 do
    if redis.call('LLEN', KEYS[first + list + 1]) > 0 then wake(KEYS[5 + list % nq]) end
  end
end
return reply
