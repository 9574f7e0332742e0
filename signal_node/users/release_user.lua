-- A session that held a user is gone. The digests of its secrets stay, so that it can be resumed.
--
-- KEYS  1 user
-- ARGV  1 session

local value = redis.call('GET', KEYS[1])
if not value then
  return
end
local held = cjson.decode(value)
if held.session == ARGV[1] then
  held.node, held.session = '', ''
  redis.call('SET', KEYS[1], cjson.encode(held), 'KEEPTTL')
end
