-- A session takes a user from whichever session held it.
--
-- KEYS  1 user
-- ARGV  1 node   2 session   3 digest of the new resume secret   4 digest of the presented one, or ''   5 TTL in ms
-- Returns node and session that held the user ('' for nobody), and 1 if the presented secret was theirs.

local before = redis.call('GET', KEYS[1])
local held = {node = '', session = '', resume = ''}
if before then
  held = cjson.decode(before)
end
redis.call(
  'SET', KEYS[1], cjson.encode({node = ARGV[1], session = ARGV[2], resume = ARGV[3]}), 'PX', ARGV[5]
)
local resumed = 0
if ARGV[4] ~= '' and ARGV[4] == held.resume then
  resumed = 1
end
return {held.node, held.session, resumed}
