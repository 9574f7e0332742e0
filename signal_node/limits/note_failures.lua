-- Failed logins of one address, counted in a sliding window: a sorted set of their times, of which the oldest leave
-- ("Better Rate Limiting With Redis Sorted Sets", ClassDojo Engineering). One that is noted again counts once. Without
-- any to note it only counts.
--
-- KEYS  1 failures
-- ARGV  1 time in ms   2 window in ms   3 how many to keep, the newest   then pairs of time in ms and id
-- Returns how many there are, and the times of the oldest and the newest, 0 for none.

for i = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[3] - 1)
local count = redis.call('ZCARD', KEYS[1])
if count == 0 then
  return {0, 0, 0}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
return {count, tonumber(oldest[2]), tonumber(newest[2])}
