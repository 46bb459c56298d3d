-- Notes a refusal that was decided without the store, for a webhook that is repeated elsewhere, and
-- gives back what the store has taken for the call unheard: whoever asked had stopped waiting.
--
-- KEYS  1 owner, 2 ended, 3 decision, 4 state, 5 active, 6 count, 7 global scope, then the call's
--       other scopes, then the dials of the agents that it might have had: none was dialed.
-- ARGV  1 call, 2 replica, 3 refusal, 4 the last key before the dials.
local call = redis.call
local known = call('MGET', KEYS[1], KEYS[2])
local owner = known[1] and string.match(known[1], ' (.*)$')
if known[2] or owner and owner ~= ARGV[2] then return 0 end
if not owner then
  call('SET', KEYS[3], ARGV[3], 'NX', 'PX', 60000)
  return 0
end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
call('SET', KEYS[3], ARGV[3], 'PX', 60000)
call('DEL', KEYS[1], KEYS[4])
for i = 7, tonumber(ARGV[4]) do call('ZREM', KEYS[i], ARGV[1]) end
for i = ARGV[4] + 1, #KEYS do call('ZREM', KEYS[i], ARGV[1], ARGV[1] .. ' ' .. ARGV[2]) end
call('SREM', KEYS[5], ARGV[1])
call('SET', KEYS[6], call('ZCOUNT', KEYS[7], '(' .. now, '+inf'), 'KEEPTTL')
return 1
