-- Gives a call that we placed, and that somebody has picked up, to the replica that was told so:
-- from here on it waits for its media as one that has rung here. Works behind the gate too, and
-- asks for no room among those that wait: the callee is there already.
--
-- KEYS  1 generation, 2 gate, 3 decision, 4 ended, 5 ended by its first name, 6 epoch, 7 owner,
--       8 owner by its first name, 9 state, 10 state by its first name, 11 active, 12 count, then
--       the call's scopes (the global one first), then those that have a reserve, then the dials of
--       its agent where they are counted; last the unwritten calls.
-- ARGV  1 call, 2 its first name, 3 replica, 4 lease, 5 longest lease, 6 ticket, 7 state, 8 whether
--       the agent is dialed here at once, 9 the key of the dials (0 without them), 10 number of
--       scopes, then for each scope: cap, name, what is kept for others.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = '(' .. now

local known = call('MGET', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
local over = known[4] or known[5]
if over then return {'ENDED', over} end

local function held(name)
  local lapses = call('ZSCORE', KEYS[13], name)
  return lapses and tonumber(lapses) > now
end
local named, pending = held(ARGV[1]), held(ARGV[2])
local decided = known[3]
if decided and (named or string.sub(decided, 1, 1) == 'R') then return {'REPEATED', decided} end

local gated = not known[1] or known[2]
if not (named or pending or gated) then
  for i = 1, tonumber(ARGV[10]) do
    local at = 8 + 3 * i
    local cap = tonumber(ARGV[at])
    for key, slots in string.gmatch(ARGV[at + 2], '(%d+):(%d+)') do
      cap = cap - math.max(0, slots - call('ZCOUNT', KEYS[tonumber(key)], live, '+inf'))
    end
    local used = call('ZCOUNT', KEYS[12 + i], live, '+inf')
    if used >= cap and ARGV[at + 1] ~= 'setup' then
      local refusal = 'R ' .. used .. ' ' .. math.max(0, cap) .. ' ' .. ARGV[at + 1]
      call('SET', KEYS[3], refusal, 'PX', 60000)
      return {'FULL', refusal}
    end
  end
end

local epoch = string.format('%.0f', math.max(tonumber(known[6] or '0') + 1, now))
local lapse, horizon = now + ARGV[4], now + ARGV[5] + 1000
call('SET', KEYS[6], epoch)
call('SET', KEYS[7], epoch .. ' ' .. ARGV[3], 'PXAT', lapse)
-- The new name comes before the old one goes: an empty key is gone, and with it its expiry.
for i = 1, tonumber(ARGV[10]) do
  call('ZADD', KEYS[12 + i], lapse, ARGV[1])
  call('ZREM', KEYS[12 + i], ARGV[2])
  call('PEXPIREAT', KEYS[12 + i], horizon)
end
call('SADD', KEYS[11], ARGV[1])
call('SREM', KEYS[11], ARGV[2])
call('PEXPIREAT', KEYS[11], horizon)
call('ZADD', KEYS[#KEYS], lapse, ARGV[1])
call('ZREM', KEYS[#KEYS], ARGV[2])
call('PEXPIRE', KEYS[#KEYS], 3600000)
call('SET', KEYS[12], call('ZCOUNT', KEYS[13], live, '+inf'), 'PXAT', horizon)
call('SET', KEYS[3], 'A ' .. ARGV[6], 'PX', 60000)
call('SET', KEYS[9], ARGV[7], 'EX', 3600)
call('DEL', KEYS[8], KEYS[10])

-- What was kept for the dial is this replica's, or is kept by the call's own name.
local dials = tonumber(ARGV[9])
if dials > 0 then
  call('ZREMRANGEBYSCORE', KEYS[dials], '-inf', now)
  local kept = call('ZSCORE', KEYS[dials], ARGV[2])
  if ARGV[8] == '1' then
    call('ZADD', KEYS[dials], 'NX', now + 60000, ARGV[1] .. ' ' .. ARGV[3])
    call('ZREM', KEYS[dials], ARGV[1])
    call('PEXPIREAT', KEYS[dials], now + 60000)
  elseif kept then
    call('ZADD', KEYS[dials], kept, ARGV[1])
  end
  call('ZREM', KEYS[dials], ARGV[2])
end
return {'LIVE', epoch, gated and 1 or 0}
