-- Drops what has lapsed, and repairs the mirrors: what every replica's tick does, on demand.
--
-- KEYS  1 active, 2 count, 3 set-ups, 4 set-up scope, then the other scopes, the global one first.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapsed = call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 256)
if #lapsed > 0 then
  call('SREM', KEYS[1], unpack(lapsed))
  call('ZREM', KEYS[5], unpack(lapsed))
end
local without = call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
if without > 0 then
  local setups = (call('GET', KEYS[3]) or '') .. string.rep('0', math.min(without, 100))
  call('SET', KEYS[3], string.sub(setups, -100), 'EX', 3600)
end
for i = 6, #KEYS do call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now) end
local used = call('ZCOUNT', KEYS[5], '(' .. now, '+inf')
if call('EXISTS', KEYS[2]) == 1 then call('SET', KEYS[2], used, 'KEEPTTL') end
return {#lapsed, used}
