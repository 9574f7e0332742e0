-- How many connections of one address each process has. One that is gone counts no more: its lease runs out, and
-- before that the others know that it does not live.
--
-- KEYS  1 connections: count and end of the lease in ms by process
-- ARGV  1 process   2 its count   3 time in ms   4 lease in ms   then the other processes that live
-- Returns the sum of the counts of those others.

if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %d', ARGV[2], ARGV[3] + ARGV[4]))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
local live = {}
for i = 5, #ARGV do
  live[ARGV[i]] = true
end
local others = 0
local shares = redis.call('HGETALL', KEYS[1])
for i = 1, #shares, 2 do
  local count, expires_at = string.match(shares[i + 1], '^(%d+) (%d+)$')
  if tonumber(expires_at) <= tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], shares[i])
  elseif live[shares[i]] then
    others = others + count
  end
end
return others
