-- Gives a slot that was taken before the carrier had named its call the call's name.
--
-- KEYS  1 owner, 2 the new owner, 3 the new ended, 4 state, 5 the new state, 6 active, then the
--       call's scopes, the global one first, then the dials of its agent, last the unwritten calls.
-- ARGV  1 the name until then, 2 the call, 3 epoch, 4 state.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = call('MGET', KEYS[1], KEYS[2], KEYS[3])
if known[3] then return {'ENDED'} end
local epoch = known[1] and string.match(known[1], '^%d+')
if not epoch or tonumber(epoch) > tonumber(ARGV[3]) or known[2] then return {'GONE'} end
local lapse = call('ZSCORE', KEYS[7], ARGV[1])
if not lapse or tonumber(lapse) <= now then return {'GONE'} end
-- The new name comes before the old one goes: an empty key is gone, and with it its expiry.
for i = 7, #KEYS - 1 do
  local until_then = call('ZSCORE', KEYS[i], ARGV[1])
  if until_then and tonumber(until_then) > now then
    call('ZADD', KEYS[i], until_then, ARGV[2])
    call('ZREM', KEYS[i], ARGV[1])
  end
end
call('SADD', KEYS[6], ARGV[2])
call('SREM', KEYS[6], ARGV[1])
call('ZADD', KEYS[#KEYS], lapse, ARGV[2])
call('ZREM', KEYS[#KEYS], ARGV[1])
call('PEXPIRE', KEYS[#KEYS], 3600000)
call('SET', KEYS[2], known[1], 'PXAT', lapse)
call('SET', KEYS[5], ARGV[4], 'EX', 3600)
call('DEL', KEYS[1], KEYS[4])
return {'OK'}
