-- A replica's heartbeat: it is there, these are its calls. Extends leases, takes in again what was
-- lost, drops what has lapsed, repairs the mirrors, and counts.
--
-- KEYS  1 generation, 2 gate, 3 active, 4 count, 5 replicas, 6 places, 7 epoch, 8 set-ups, 9 set-up
--       scope, then the other scopes (the global one first), then for each call: owner, ended,
--       state, decision; last the unwritten calls.
-- ARGV  1 a new generation, 2 replica, 3 longest lease, 4 number of scopes without the set-up one,
--       5 how long the gate stays, 6 whether the replica was without the store, 7 how long a
--       silent replica counts, 8 its free places (-1 while it drains), 9 how many unwritten calls it
--       looks after, then for each call: call, epoch (0 if it was taken without the store), lease,
--       whether its media is there (1), awaited (0), or not to be expected while it rings (r), the
--       other scopes as "1 3 ...", state and ticket where the store may not know them.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = '(' .. now
local horizon = now + ARGV[3] + 1000
local scopes = tonumber(ARGV[4])

if call('SET', KEYS[1], ARGV[1], 'NX') or ARGV[6] == '1' then
  call('SET', KEYS[2], 1, 'PX', ARGV[5])
end

local news, held = {}, {}
local key = 10 + scopes
for at = 10, #ARGV, 7 do
  local sid, claimed = ARGV[at], tonumber(ARGV[at + 1])
  local known = call('MGET', KEYS[key], KEYS[key + 1])
  local owner = known[1]
  local stored = owner and tonumber(string.match(owner, '^%d+')) or -1
  local mine = owner and string.match(owner, ' (.*)$') == ARGV[2]
  local has_media = ARGV[at + 3] == '1'
  local later = claimed > 0 and stored > claimed
  local gives_way = later and has_media and tonumber(call('ZSCORE', KEYS[9], sid) or '0') > now
  if known[2] then
    news[#news + 1] = {sid, 'ENDED', known[2]}
  -- Who waits for a call's media gives way to who has it.
  elseif later and not gives_way
    or claimed == 0 and owner and not mine and not has_media then
    news[#news + 1] = {sid, 'LOST'}
  else
    local epoch = claimed
    if claimed == 0 and mine and not has_media then
      epoch = stored -- It was admitted here after all, when nobody waited for that any more.
    elseif claimed == 0 or later then
      epoch = math.max(tonumber(call('GET', KEYS[7]) or '0') + 1, now)
    end
    local lapse = now + ARGV[at + 2]
    if stored ~= claimed then
      -- What was lost with the store must not be undercut: its clock may be another's by now.
      if epoch > tonumber(call('GET', KEYS[7]) or '0') then
        call('SET', KEYS[7], string.format('%.0f', epoch))
      end
      news[#news + 1] = {sid, 'TAKEN_IN', string.format('%.0f', epoch)}
      if has_media then call('ZREM', KEYS[9], sid) end
    end
    call('ZADD', KEYS[10], lapse, sid)
    for scope in string.gmatch(ARGV[at + 4], '%d+') do
      call('ZADD', KEYS[9 + tonumber(scope)], lapse, sid)
    end
    if ARGV[at + 3] == '0' then call('ZADD', KEYS[9], lapse, sid) end
    call('SADD', KEYS[3], sid)
    held[#held + 1], held[#held + 2] = lapse, sid
    call('SET', KEYS[key], string.format('%.0f', epoch) .. ' ' .. ARGV[2], 'PXAT', lapse)
    if ARGV[at + 5] ~= '' then call('SET', KEYS[key + 2], ARGV[at + 5], 'EX', 3600) end
    if ARGV[at + 6] ~= '' then
      -- What was acquired here unheard has kept a ticket that nobody was given.
      if mine then call('DEL', KEYS[key + 3]) end
      call('SET', KEYS[key + 3], 'A ' .. ARGV[at + 6], 'NX', 'PX', 60000)
    end
  end
  key = key + 4
end

local lapsed = call('ZRANGEBYSCORE', KEYS[10], '-inf', now, 'LIMIT', 0, 256)
if #lapsed > 0 then
  call('SREM', KEYS[3], unpack(lapsed))
  call('ZREM', KEYS[10], unpack(lapsed))
end
if #held > 0 then call('ZADD', KEYS[#KEYS], unpack(held)) end
-- For 3 s after its lease a call may be on its way to another owner, or to its end. Then it is for
-- one replica to look after, and 15 s later for another: whoever has it may be gone.
local unwritten =
  call('ZRANGEBYSCORE', KEYS[#KEYS], '-inf', now - 3000, 'LIMIT', 0, ARGV[9])
for _, sid in ipairs(unwritten) do call('ZADD', KEYS[#KEYS], now - 3000 + 15000, sid) end
call('PEXPIRE', KEYS[#KEYS], 3600000)
local without = call('ZREMRANGEBYSCORE', KEYS[9], '-inf', now)
if without > 0 then
  local setups = (call('GET', KEYS[8]) or '') .. string.rep('0', math.min(without, 100))
  call('SET', KEYS[8], string.sub(setups, -100), 'EX', 3600)
end
for i = 11, 9 + scopes do call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now) end
local used = {call('ZCOUNT', KEYS[9], live, '+inf')}
call('PEXPIREAT', KEYS[9], horizon)
for i = 1, scopes do
  used[i + 1] = call('ZCOUNT', KEYS[9 + i], live, '+inf')
  call('PEXPIREAT', KEYS[9 + i], horizon)
end
call('PEXPIREAT', KEYS[3], horizon)
call('SET', KEYS[4], used[2], 'PXAT', horizon)

call('ZADD', KEYS[5], now, ARGV[2])
call('HSET', KEYS[6], ARGV[2], ARGV[8])
local silent = call('ZRANGEBYSCORE', KEYS[5], '-inf', now - ARGV[7], 'LIMIT', 0, 256)
if #silent > 0 then
  call('ZREM', KEYS[5], unpack(silent))
  call('HDEL', KEYS[6], unpack(silent))
end
call('PEXPIRE', KEYS[5], ARGV[7])
call('PEXPIRE', KEYS[6], ARGV[7])
local replicas, siblings, places = 0, 0, 0
local free = call('HGETALL', KEYS[6])
for i = 1, #free, 2 do
  replicas = replicas + 1
  local room = tonumber(free[i + 1])
  if free[i] ~= ARGV[2] and room >= 0 then
    siblings = siblings + 1
    places = places + room
  end
end
return {now, call('EXISTS', KEYS[2]), replicas, siblings, places, lapsed, unwritten, used, news}
