-- A session that held a user is gone. The digests of its secrets stay, so that it can be resumed.
--
-- KEYS  1 user
-- ARGV  1 session

local read, value = pcall(redis.call, 'GET', KEYS[1])
if not read or not value then
  return
end
local decoded, held = pcall(cjson.decode, value)
if decoded and type(held) == 'table' and held.session == ARGV[1] then
  held.node, held.session = '', ''
  redis.call('SET', KEYS[1], cjson.encode(held), 'KEEPTTL')
end
