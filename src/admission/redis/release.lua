-- Gives a call's slot back, and remembers that the call is over.
--
-- KEYS  1 owner, 2 ended, 3 freed, 4 decision, 5 state, 6 active, 7 count, 8 set-ups, 9 set-up
--       scope, then the call's other scopes, the global one first, then the dials of its agent.
-- ARGV  1 call, 2 epoch ("any": whoever holds it, as the carrier says; 0: what this replica took
--       without the store), 3 end reason, 4 end reason if its media never came, 5 its last state if
--       it is known, 6 whether it may never be admitted again, 7 replica, 8 whether its media was here,
--       9 the last key before the dials.
local call = redis.call
local known = call('MGET', KEYS[1], KEYS[2], KEYS[3])
local owner = known[1] and tonumber(string.match(known[1], '^%d+'))
if ARGV[2] ~= 'any' and owner and owner > tonumber(ARGV[2]) then
  local mine = string.match(known[1], ' (.*)$') == ARGV[7]
  local waits = ARGV[8] == '1' and call('ZSCORE', KEYS[9], ARGV[1])
  if ARGV[2] ~= '0' or not (mine or waits) then return {'STALE', 0, 0, ''} end
end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed = 0
for i = 10, tonumber(ARGV[9]) do removed = math.max(removed, call('ZREM', KEYS[i], ARGV[1])) end
-- Only what nobody has dialed for yet is in there by the call's name alone.
for i = ARGV[9] + 1, #KEYS do call('ZREM', KEYS[i], ARGV[1]) end
local without_media = call('ZREM', KEYS[9], ARGV[1]) == 1
if without_media then
  call('SET', KEYS[8], string.sub((call('GET', KEYS[8]) or '') .. '0', -100), 'EX', 3600)
end
local used = call('ZCOUNT', KEYS[10], '(' .. now, '+inf')
if removed == 1 then
  call('SREM', KEYS[6], ARGV[1])
  call('SET', KEYS[7], used, 'KEEPTTL')
end
call('DEL', KEYS[1], KEYS[4])

-- What has lapsed is removed as well, and was not held: the owner's record goes with the lease.
local waited = owner and without_media
local reason = known[2]

local function note_end(state)
  local _, ended = pcall(cjson.decode, state or '')
  if type(ended) == 'table' then
    ended.state, ended.end_reason, ended.ended_at = 'ended', reason, ended.ended_at or now
    -- Whoever frees a call that waits notes its end; of any other its owner does.
    if waited then ended.ended_by = ARGV[7] end
    call('SET', KEYS[5], cjson.encode(ended), 'EX', 3600)
  end
end

if not reason then
  reason = waited and ARGV[4] or ARGV[3]
  if ARGV[6] == '1' then
    call('SET', KEYS[2], reason, 'PX', 3600000)
    -- Whoever frees a call that waits notes its end. If nobody has it, a replica may have admitted it
    -- without the store and will tell of it: that one notes it.
    local notes = waited and ARGV[7] or not owner and '?'
    if ARGV[2] == 'any' and notes then call('SET', KEYS[3], notes, 'PX', 3600000) end
  end
  if ARGV[2] ~= 'any' and ARGV[5] ~= '' then
    -- Where it goes on, or what is due to it, may have been noted before, by a store that was slow
    -- to hear of its end.
    local _, noted = pcall(cjson.decode, call('GET', KEYS[5]) or '')
    local state = ARGV[5]
    if type(noted) == 'table' and (noted.transfer or noted.due) then
      local ended = cjson.decode(state)
      ended.transfer, ended.due = noted.transfer, noted.due
      state = cjson.encode(ended)
    end
    call('SET', KEYS[5], state, 'EX', 3600)
  else
    note_end(ARGV[5] ~= '' and ARGV[5] or call('GET', KEYS[5]))
  end
elseif ARGV[5] ~= '' and call('EXISTS', KEYS[5]) == 0 then
  note_end(ARGV[5]) -- Whoever said first that it is over knew nothing else of the call.
end
if owner then return {'FREED', used, waited and 1 or 0, reason} end
-- Whoever has freed it before, and asks again, may not have heard that it waited.
if ARGV[2] == 'any' then return {'GONE', used, known[3] == ARGV[7] and 1 or 0, reason} end
local holder = '?' .. ARGV[7]
if known[3] == '?' and ARGV[8] == '1' then
  call('DEL', KEYS[3]) -- Whoever has its media notes its end.
elseif known[3] == '?' and ARGV[6] == '1' then
  call('SET', KEYS[3], holder, 'KEEPTTL')
  known[3] = holder
end
local notes = known[3] == holder and ARGV[6] == '1' and ARGV[8] == '0'
return {'GONE', used, notes and 1 or 0, reason}
