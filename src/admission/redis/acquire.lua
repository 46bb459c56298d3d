-- Takes a slot in every scope of a call, or in none.
--
-- KEYS  1 generation, 2 gate, 3 decision, 4 ended, 5 set-ups, 6 epoch, 7 owner, 8 state, 9 active,
--       10 count, then the call's scopes (the global one first, the set-up one second), then those
--       that have a reserve.
-- ARGV  1 call, 2 replica, 3 lease, 4 longest lease, 5 ticket, 6 state, 7 number of scopes, then
--       for each scope: cap, name, and what is kept for others as "key:slots ...".
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = '(' .. now

local known = call('MGET', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
if not known[1] or known[2] then return {'RESYNC'} end
if known[4] then return {'ENDED', known[4]} end

local lapses = call('ZSCORE', KEYS[11], ARGV[1])
local held = lapses and tonumber(lapses) > now
local decided = known[3]
if decided and (held or string.sub(decided, 1, 1) == 'R') then return {'REPEATED', decided} end
if held then return {'HELD'} end

local used = {}
for i = 1, tonumber(ARGV[7]) do
  local at = 5 + 3 * i
  local cap = tonumber(ARGV[at])
  used[i] = call('ZCOUNT', KEYS[10 + i], live, '+inf')
  if ARGV[at + 2] ~= '' then
    for key, slots in string.gmatch(ARGV[at + 2], '(%d+):(%d+)') do
      cap = cap - math.max(0, slots - call('ZCOUNT', KEYS[tonumber(key)], live, '+inf'))
    end
  end
  if i == 2 and known[5] and string.find(known[5], '0', 1, true) then
    -- While most calls bring no media, they may wait in half of what is free.
    local _, without = string.gsub(known[5], '0', '')
    if without > 50 then
      local free = tonumber(ARGV[8]) - (used[1] - used[2])
      cap = math.min(cap, math.max(1, math.floor(free / 2)))
    end
  end
  if used[i] >= cap then
    local refusal = 'R ' .. used[i] .. ' ' .. math.max(0, cap) .. ' ' .. ARGV[at + 1]
    call('SET', KEYS[3], refusal, 'PX', 60000)
    return {'FULL', refusal}
  end
end

-- Every check is behind us: under noeviction a full store fails here, with nothing written.
local epoch = string.format('%.0f', math.max(tonumber(known[6] or '0') + 1, now))
local lapse, horizon = now + ARGV[3], now + ARGV[4] + 1000
call('SET', KEYS[6], epoch)
call('SET', KEYS[7], epoch .. ' ' .. ARGV[2], 'PXAT', lapse)
for i = 1, #used do
  used[i] = used[i] + 1
  call('ZADD', KEYS[10 + i], lapse, ARGV[1])
  call('PEXPIREAT', KEYS[10 + i], horizon)
end
call('SADD', KEYS[9], ARGV[1])
call('PEXPIREAT', KEYS[9], horizon)
call('SET', KEYS[10], used[1], 'PXAT', horizon)
call('SET', KEYS[3], 'A ' .. ARGV[5], 'PX', 60000)
call('SET', KEYS[8], ARGV[6], 'EX', 3600)
return {'OK', epoch, used}
