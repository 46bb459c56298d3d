-- Tells what has become of a call of whose end nobody has told that it is written, and keeps what is
-- known of it for a day: the database may be away for longer than that is kept else.
--
-- KEYS  1 state, 2 owner, 3 replicas.   ARGV  1 whether its end is written, and only whose it was is not.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = call('GET', KEYS[1])
local _, known = pcall(cjson.decode, state or '')
if type(known) ~= 'table' then return {'SETTLED'} end
local fate = call('EXISTS', KEYS[2]) == 1 and 'OPEN' or 'LOST'
local ended_by = ARGV[1] == '0' and known.ended_by or ''
for _, replica in ipairs({known.replica or '', ended_by}) do
  if call('ZSCORE', KEYS[3], replica) then fate = 'OPEN' end
end
if (tonumber(known.rang_at) or 0) > now - 86400000 then call('PEXPIRE', KEYS[1], 3600000) end
return {fate, state}
