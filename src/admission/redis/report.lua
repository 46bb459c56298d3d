-- Takes in what a replica has seen of agents, and tells what all replicas have.
--
-- KEYS  for each agent: resting, dials, tokens.
-- ARGV  1 replica, then for each agent: how many tokens it has used up, for how long it rests (0: it
--       does not; -1: it works again), number of dials that the store may not know, then for each
--       of those: call, how long it counts still.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = '(' .. now
local seen, at = {}, 2
for key = 1, #KEYS, 3 do
  local used, rests, dials = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  at = at + 3
  -- For a minute after its rest one call at a time tries it.
  if rests < 0 then
    call('DEL', KEYS[key])
  elseif rests > 0 and call('PTTL', KEYS[key]) < rests + 60000 then
    call('SET', KEYS[key], 1, 'PX', rests + 60000)
  end
  -- What has lapsed would be in the way of the same dial, told with time left.
  if dials > 0 then call('ZREMRANGEBYSCORE', KEYS[key + 1], '-inf', now) end
  for _ = 1, dials do
    call('ZADD', KEYS[key + 1], 'NX', now + ARGV[at + 1], ARGV[at] .. ' ' .. ARGV[1])
    call('PEXPIREAT', KEYS[key + 1], now + 60000)
    at = at + 2
  end
  -- Every replica adds an entry a second at most: there are few to take the sum of.
  if used > 0 then
    call('ZREMRANGEBYSCORE', KEYS[key + 2], '-inf', now)
    -- No two scripts run within the same microsecond.
    call('ZADD', KEYS[key + 2], now + 60000, time[1] .. '.' .. time[2] .. ' ' .. used)
    call('PEXPIREAT', KEYS[key + 2], now + 60000)
  end
  local tokens = 0
  for _, entry in ipairs(call('ZRANGEBYSCORE', KEYS[key + 2], live, '+inf')) do
    tokens = tokens + string.match(entry, '%d+$')
  end
  local dialed = call('ZCOUNT', KEYS[key + 1], live, '+inf')
  local fails = call('PTTL', KEYS[key])
  seen[#seen + 1] = {dialed, tokens, math.max(0, fails - 60000), fails > 0 and 1 or 0}
end
return {seen}
