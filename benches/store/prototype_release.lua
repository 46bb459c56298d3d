-- KEYS: active count owner global [scope...]   ARGV: sid epoch ("0" = any)
local c=redis.call; local t=c('TIME'); local now=t[1]*1000+math.floor(t[2]/1000)
local o=c('GET',KEYS[3])
if ARGV[2]~='0' and o and tonumber(string.match(o,'^%d+'))>tonumber(ARGV[2]) then return {'STALE',-1} end
local r=0; for i=4,#KEYS do r=r+c('ZREM',KEYS[i],ARGV[1]) end
c('SREM',KEYS[1],ARGV[1]); c('DEL',KEYS[3])
local n=c('ZCOUNT',KEYS[4],'('..now,'+inf')
if r>0 then c('SET',KEYS[2],n,'KEEPTTL') end
return {r>0 and 'OK' or 'GONE',n}
