-- Gives a call's slot back, and remembers that the call is over.
--
-- KEYS  1 owner, 2 ended, 3 decision, 4 state, 5 active, 6 count, 7 set-ups, 8 set-up scope, then
--       the call's other scopes, the global one first.
-- ARGV  1 call, 2 epoch ("0": whoever holds it, as the carrier says), 3 end reason, 4 end reason if
--       its media never came, 5 its last state if it is known, 6 whether it may never be admitted again.
local call = redis.call
local known = call('MGET', KEYS[1], KEYS[2])
local owner = known[1] and tonumber(string.match(known[1], '^%d+'))
if ARGV[2] ~= '0' and owner and owner > tonumber(ARGV[2]) then return {'STALE', 0, 0, ''} end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = 0
for i = 9, #KEYS do held = math.max(held, call('ZREM', KEYS[i], ARGV[1])) end
local waited = call('ZREM', KEYS[8], ARGV[1])
if waited == 1 then
  call('SET', KEYS[7], string.sub((call('GET', KEYS[7]) or '') .. '0', -100), 'EX', 3600)
end
local used = call('ZCOUNT', KEYS[9], '(' .. now, '+inf')
if held == 1 then
  call('SREM', KEYS[5], ARGV[1])
  call('SET', KEYS[6], used, 'KEEPTTL')
end
call('DEL', KEYS[1], KEYS[3])

local reason, state = known[2], ARGV[5]
local kept = call('GET', KEYS[4])
if not reason then
  reason = (waited == 1) and ARGV[4] or ARGV[3]
  if ARGV[6] == '1' then call('SET', KEYS[2], reason, 'PX', 3600000) end
  if state == '' then state = kept end
elseif kept then
  state = nil -- Who said first that it is over has said why and when.
end
local _, ended = pcall(cjson.decode, state or '')
if type(ended) == 'table' then
  ended.state, ended.end_reason, ended.ended_at = 'ended', reason, ended.ended_at or now
  call('SET', KEYS[4], cjson.encode(ended), 'EX', 3600)
end
return {held == 1 and 'FREED' or 'GONE', used, waited, reason}
