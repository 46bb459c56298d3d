-- Lets time pass for every key under a prefix, and lists what is left. The server's own clock goes
-- on meanwhile: what it has gone on since the last time is taken back.
--
-- ARGV  1 prefix, 2 milliseconds to pass, 3 the server's time when this last ran.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local drift = now - ARGV[3]
local by = ARGV[2] - drift
local seen, eternal = {}, {}
local names = call('KEYS', ARGV[1] .. '*')
table.sort(names)
for _, key in ipairs(names) do
  local lasts = call('PTTL', key)
  if lasts >= 0 and lasts <= by then
    call('DEL', key)
  else
    if lasts >= 0 then call('PEXPIRE', key, lasts - by) else eternal[#eternal + 1] = key end
    local kind = call('TYPE', key).ok
    if kind == 'zset' then
      local members = call('ZRANGE', key, 0, -1, 'WITHSCORES')
      for i = 1, #members, 2 do
        local score = members[i + 1] - by
        call('ZADD', key, score, members[i])
        seen[#seen + 1] = {key, members[i], score > now and 'live' or 'past'}
      end
    elseif kind == 'set' then
      for _, member in ipairs(call('SMEMBERS', key)) do seen[#seen + 1] = {key, member, kind} end
    elseif kind == 'string' then
      seen[#seen + 1] = {key, call('GET', key), kind}
    else
      seen[#seen + 1] = {key, cjson.encode(call('HGETALL', key)), kind}
    end
  end
end
return {now, drift, seen, eternal}
