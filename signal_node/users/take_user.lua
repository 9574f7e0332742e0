-- A session takes a user, from whichever session held it.
--
-- One that presents a secret is a client that comes back by itself: it takes over only when the secret is the last one,
-- or the one before whose successor may never have arrived. Otherwise another client has had the user since; a session
-- that this one still holds it with is left alone. One without a secret is a person who begins anew, and takes over.
--
-- KEYS  1 user
-- ARGV  1 node   2 session   3 digest of the new secret   4 digest of the presented one, or ''   5 time in ms   6 TTL in ms
--       7 session that is known not to live, or ''
-- Returns node and session that held the user ('' for nobody), and 'taken', 'resumed', or 'outdated': nothing was done.

local held = {node = '', session = '', resume = ''}
local read, value = pcall(redis.call, 'GET', KEYS[1])
local decoded = true
if read and value then
  decoded, held = pcall(cjson.decode, value)
end
if not (read and decoded and type(held) == 'table' and held.node and held.session) then
  return {'', '', 'taken'} -- it is an app's, which may have keys of this name where ours have no prefix
end
local presented = ARGV[4]
local resumed = presented ~= '' and (presented == held.resume or presented == held.previous)
if presented ~= '' and not resumed then
  local live = held.session ~= '' and held.session ~= ARGV[2] and held.session ~= ARGV[7]
  if live then
    return {held.node, held.session, 'outdated'}
  end
end
local taken = {node = ARGV[1], session = ARGV[2], resume = ARGV[3], at = tonumber(ARGV[5])}
if resumed then
  taken.previous = presented
end
redis.call('SET', KEYS[1], cjson.encode(taken), 'PX', ARGV[6])
return {held.node, held.session, resumed and 'resumed' or 'taken'}
