-- Hands a call to the replica that its media socket has reached, once a ticket. Works behind the
-- gate too: the caller is there already.
--
-- KEYS  1 generation, 2 gate, 3 ended, 4 ticket, 5 set-ups, 6 epoch, 7 state, 8 owner, 9 active,
--       10 count, 11 set-up scope, then the call's scopes (the global one first), then those that
--       have a reserve, then the dials of its agent where they are counted; last the unwritten
--       calls.
-- ARGV  1 call, 2 replica, 3 lease, 4 longest lease, 5 state, 6 whether it was admitted without the
--       store, 7 number of scopes, then for each scope: cap, name, what is kept for others, then
--       the key of the dials.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = '(' .. now

local known = call('MGET', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
if known[3] then return {'ENDED', known[3]} end
if known[4] then return {'USED'} end

local gated = not known[1] or known[2]
local lapses = call('ZSCORE', KEYS[12], ARGV[1])
local held = lapses and tonumber(lapses) > now
if not held and not gated and ARGV[6] == '0' then
  for i = 1, tonumber(ARGV[7]) do
    local at = 5 + 3 * i
    local cap = tonumber(ARGV[at])
    for key, slots in string.gmatch(ARGV[at + 2], '(%d+):(%d+)') do
      cap = cap - math.max(0, slots - call('ZCOUNT', KEYS[tonumber(key)], live, '+inf'))
    end
    local used = call('ZCOUNT', KEYS[11 + i], live, '+inf')
    if used >= cap then return {'FULL', 'R ' .. used .. ' ' .. math.max(0, cap) .. ' ' .. ARGV[at + 1]} end
  end
end

local epoch = string.format('%.0f', math.max(tonumber(known[6] or '0') + 1, now))
local lapse, horizon = now + ARGV[3], now + ARGV[4] + 1000
call('SET', KEYS[4], ARGV[2], 'PX', 60000)
call('SET', KEYS[6], epoch)
call('SET', KEYS[8], epoch .. ' ' .. ARGV[2], 'PXAT', lapse)
call('ZREM', KEYS[11], ARGV[1])
call('SET', KEYS[5], string.sub((known[5] or '') .. '1', -100), 'EX', 3600)
for i = 1, tonumber(ARGV[7]) do
  call('ZADD', KEYS[11 + i], lapse, ARGV[1])
  call('PEXPIREAT', KEYS[11 + i], horizon)
end
call('SADD', KEYS[9], ARGV[1])
call('PEXPIREAT', KEYS[9], horizon)
call('ZADD', KEYS[#KEYS], lapse, ARGV[1])
call('PEXPIRE', KEYS[#KEYS], 3600000)
call('SET', KEYS[10], call('ZCOUNT', KEYS[12], live, '+inf'), 'PXAT', horizon)

-- The agent is dialed here, unless that is done: what was kept for a dial elsewhere is given back.
local dials = tonumber(ARGV[8 + 3 * ARGV[7]])
if dials then
  call('ZREMRANGEBYSCORE', KEYS[dials], '-inf', now)
  call('ZREM', KEYS[dials], ARGV[1])
  call('ZADD', KEYS[dials], 'NX', now + 60000, ARGV[1] .. ' ' .. ARGV[2])
  call('PEXPIREAT', KEYS[dials], now + 60000)
end

-- What the replica that admitted the call knew of it stays, where this one says nothing else.
local state = ARGV[5]
local _, merged = pcall(cjson.decode, known[7] or '')
if type(merged) == 'table' then
  merged.end_reason, merged.ended_at, merged.ended_by = nil, nil, nil
  for name, value in pairs(cjson.decode(state)) do merged[name] = value end
  state = cjson.encode(merged)
end
call('SET', KEYS[7], state, 'EX', 3600)
return {'LIVE', epoch, state, gated and 1 or 0}
