-- KEYS: gen gate active count instances global [S scopes...] [owner record per call...]
-- ARGV: genval who lease maxlease S gate_ms degraded beat_ms  then per call: sid epoch "scope indexes"
local c=redis.call; local t=c('TIME'); local now=t[1]*1000+math.floor(t[2]/1000)
local exp,hor,S=now+tonumber(ARGV[3]),now+tonumber(ARGV[4])+1000,tonumber(ARGV[5])
if c('SET',KEYS[1],ARGV[1],'NX') or ARGV[7]=='1' then c('SET',KEYS[2],1,'PX',ARGV[6]) end
local lost,k={},7+S
for a=9,#ARGV,3 do
  local o=c('GET',KEYS[k]); local cur=o and tonumber(string.match(o,'^%d+')) or -1
  if cur>tonumber(ARGV[a+1]) then lost[#lost+1]=ARGV[a]
  else
    c('ZADD',KEYS[6],exp,ARGV[a]); c('SADD',KEYS[3],ARGV[a])
    for i in string.gmatch(ARGV[a+2],'%d+') do c('ZADD',KEYS[6+tonumber(i)],exp,ARGV[a]) end
    c('SET',KEYS[k],ARGV[a+1]..' '..ARGV[2],'PXAT',exp)
  end
  k=k+1
end
local dead=c('ZRANGEBYSCORE',KEYS[6],'-inf',now,'LIMIT',0,256)
if #dead>0 then c('SREM',KEYS[3],unpack(dead)); c('ZREM',KEYS[6],unpack(dead)) end
for i=7,6+S do c('ZREMRANGEBYSCORE',KEYS[i],'-inf',now); c('PEXPIREAT',KEYS[i],hor) end
c('PEXPIREAT',KEYS[6],hor); c('PEXPIREAT',KEYS[3],hor)
c('ZADD',KEYS[5],now,ARGV[2]); c('ZREMRANGEBYSCORE',KEYS[5],'-inf',now-3*tonumber(ARGV[8])); c('PEXPIRE',KEYS[5],3*tonumber(ARGV[8]))
local n=c('ZCOUNT',KEYS[6],'('..now,'+inf'); c('SET',KEYS[4],n,'PXAT',hor)
return {n,c('EXISTS',KEYS[2]),c('ZCARD',KEYS[5]),#dead,lost}
