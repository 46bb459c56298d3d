-- Adds what has become known of a call to its state. A call that was refused has none until then.
--
-- KEYS  1 state.   ARGV  1 a JSON object whose fields replace those of the state.
local _, state = pcall(cjson.decode, redis.call('GET', KEYS[1]) or '')
if type(state) ~= 'table' then state = {} end
for name, value in pairs(cjson.decode(ARGV[1])) do state[name] = value end
redis.call('SET', KEYS[1], cjson.encode(state), 'EX', 3600)
return 1
