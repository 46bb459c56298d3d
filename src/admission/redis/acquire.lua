-- Takes a slot in every scope of a call, or in none.
--
-- KEYS  1 generation, 2 gate, 3 decision, 4 ended, 5 set-ups, 6 epoch, 7 owner, 8 state, 9 active,
--       10 count, then the call's scopes (the global one first, the set-up one second where the call
--       waits for media), then those that have a reserve, then for each agent that may have the
--       call, in the order in which they are tried: resting, its scope, dials, tokens; last the
--       unwritten calls.
-- ARGV  1 call, 2 replica, 3 lease, 4 longest lease, 5 whether the agent is dialed here at once,
--       6 the last key before the agents', 7 number of scopes, then for each scope: cap, name, and
--       what is kept for others as "key:slots ...", then for each agent: name, whether it rests
--       here, how many calls it may talk in ("": nobody counts them), how many it may be dialed for
--       and how many tokens it may use up in a minute ("": any number), ticket, state.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = '(' .. now

local agent = tonumber(ARGV[6])
local known =
  call('MGET', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[agent + 1])
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
  if ARGV[at + 1] == 'setup' and known[5] and string.find(known[5], '0', 1, true) then
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

-- Returns why an agent cannot have the call, if so; `fails` if it keeps failing.
local function lacks(at, fails)
  local function reason(count, cap, word)
    return 'R ' .. count .. ' ' .. cap .. ' agent:' .. ARGV[at] .. ' ' .. word
  end
  if ARGV[at + 1] == '1' or fails and call('PTTL', KEYS[agent + 1]) > 60000 then
    return reason(0, 0, 'resting')
  end
  if ARGV[at + 2] ~= '' then
    local sessions = call('ZCOUNT', KEYS[agent + 2], live, '+inf')
    if sessions >= tonumber(ARGV[at + 2]) then return reason(sessions, ARGV[at + 2], 'full') end
  end
  if ARGV[at + 3] ~= '' then
    local dials = call('ZCOUNT', KEYS[agent + 3], live, '+inf')
    if dials >= tonumber(ARGV[at + 3]) then return reason(dials, ARGV[at + 3], 'dials') end
  end
  if ARGV[at + 4] ~= '' then
    local tokens = 0
    for _, entry in ipairs(call('ZRANGEBYSCORE', KEYS[agent + 4], live, '+inf')) do
      tokens = tokens + string.match(entry, '%d+$')
    end
    if tokens >= tonumber(ARGV[at + 4]) then return reason(tokens, ARGV[at + 4], 'tokens') end
  end
end

local at, fails = 8 + 3 * #used, known[7]
local refusal = lacks(at, fails)
local first = refusal
while refusal do
  at, agent = at + 7, agent + 4
  if at > #ARGV then
    call('SET', KEYS[3], first, 'PX', 60000)
    return {'FULL', first}
  end
  fails = call('GET', KEYS[agent + 1])
  refusal = lacks(at, fails)
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
call('ZADD', KEYS[#KEYS], lapse, ARGV[1])
call('PEXPIRE', KEYS[#KEYS], 3600000)
call('SET', KEYS[10], used[1], 'PXAT', horizon)
call('SET', KEYS[3], 'A ' .. ARGV[at + 5], 'PX', 60000)
call('SET', KEYS[8], ARGV[at + 6], 'EX', 3600)
-- The call tries whether the agent works again: nobody else does for as long as it rests.
if fails then call('SET', KEYS[agent + 1], 1, 'PX', 62000) end
if ARGV[at + 2] ~= '' then
  call('ZADD', KEYS[agent + 2], lapse, ARGV[1])
  call('PEXPIREAT', KEYS[agent + 2], horizon)
  used[#used + 1] = call('ZCOUNT', KEYS[agent + 2], live, '+inf')
end
if ARGV[at + 3] ~= '' then
  call('ZREMRANGEBYSCORE', KEYS[agent + 3], '-inf', now)
  local member = ARGV[5] == '1' and ARGV[1] .. ' ' .. ARGV[2] or ARGV[1]
  call('ZADD', KEYS[agent + 3], now + 60000, member)
  call('PEXPIREAT', KEYS[agent + 3], now + 60000)
end
return {'OK', epoch, used, (at - 8 - 3 * tonumber(ARGV[7])) / 7}
