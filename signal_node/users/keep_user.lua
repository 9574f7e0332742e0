-- A session that has a user says so again: Redis may have lost it, may have been away when the user was taken, and
-- forgets it in time. Of two sessions the one that took the user later stays.
--
-- KEYS  1 user
-- ARGV  1 node   2 session   3 digest of its secret   4 digest of the one before, or ''   5 when it took the user, in ms
--       6 TTL in ms
-- Returns node and session of another that held the user ('' for nobody), and 'kept', or 'replaced': that one stays.

local held = {node = '', session = ''}
local read, value = pcall(redis.call, 'GET', KEYS[1])
local decoded = true
if read and value then
  decoded, held = pcall(cjson.decode, value)
end
if not (read and decoded and type(held) == 'table' and held.node and held.session) then
  return {'', '', 'kept'} -- it is an app's, which may have keys of this name where ours have no prefix
end
local another = held.session ~= ARGV[2]
if another and held.session ~= '' and (held.at or 0) >= tonumber(ARGV[5]) then
  return {held.node, held.session, 'replaced'}
end
local kept = {node = ARGV[1], session = ARGV[2], resume = ARGV[3], at = tonumber(ARGV[5])}
if ARGV[4] ~= '' then
  kept.previous = ARGV[4]
end
redis.call('SET', KEYS[1], cjson.encode(kept), 'PX', ARGV[6])
if another then
  return {held.node, held.session, 'kept'}
end
return {'', '', 'kept'}
