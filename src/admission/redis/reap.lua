-- Drops what has lapsed, and repairs the mirrors: what every replica's tick does, on demand.
--
-- KEYS  1 active, 2 count, 3 set-up scope, then the other scopes, the global one first.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapsed = call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 256)
if #lapsed > 0 then
  call('SREM', KEYS[1], unpack(lapsed))
  call('ZREM', KEYS[4], unpack(lapsed))
end
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
for i = 5, #KEYS do call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now) end
local used = call('ZCARD', KEYS[4])
if call('EXISTS', KEYS[2]) == 1 then call('SET', KEYS[2], used, 'KEEPTTL') end
return {#lapsed, used}
