-- KEYS: gen gate active count owner epoch global [scope...]   ARGV: sid who lease maxlease cap...
local c=redis.call; local t=c('TIME'); local now=t[1]*1000+math.floor(t[2]/1000); local lo='('..now
if c('EXISTS',KEYS[1])==0 or c('EXISTS',KEYS[2])==1 then return {'RESYNC',0,-1} end
local s=c('ZSCORE',KEYS[7],ARGV[1])
if s and tonumber(s)>now then
  local o=c('GET',KEYS[5]); return {'ALREADY',o and tonumber(string.match(o,'^%d+')) or 0,c('ZCOUNT',KEYS[7],lo,'+inf')}
end
for i=7,#KEYS do local cap=tonumber(ARGV[i-2])
  if cap>=0 then local n=c('ZCOUNT',KEYS[i],lo,'+inf'); if n>=cap then return {'FULL',i-6,n} end end
end
local dead=c('ZRANGEBYSCORE',KEYS[7],'-inf',now,'LIMIT',0,256)
if #dead>0 then c('SREM',KEYS[3],unpack(dead)); c('ZREM',KEYS[7],unpack(dead)) end
local exp,hor=now+tonumber(ARGV[3]),now+tonumber(ARGV[4])+1000
for i=7,#KEYS do c('ZADD',KEYS[i],exp,ARGV[1]); c('PEXPIREAT',KEYS[i],hor) end
c('SADD',KEYS[3],ARGV[1]); c('PEXPIREAT',KEYS[3],hor)
local e=math.max((tonumber(c('GET',KEYS[6]) or '0'))+1,now); c('SET',KEYS[6],string.format('%.0f',e))
c('SET',KEYS[5],string.format('%.0f',e)..' '..ARGV[2],'PXAT',exp)
local n=c('ZCOUNT',KEYS[7],lo,'+inf'); c('SET',KEYS[4],n,'PXAT',hor)
return {'OK',e,n}
