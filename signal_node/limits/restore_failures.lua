-- Fill up the failed logins of one address to what Postgres knows of them. Of those that nodes have not put back it
-- knows the times of the first and the last only: the others count as old as the last.
--
-- KEYS  1 failures
-- ARGV  1 how many there were   2 time of the first in ms   3 time of the last in ms   4 ms until they expire

local count = redis.call('ZCARD', KEYS[1])
local missing = ARGV[1] - count
if missing <= 0 then
  return
end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local first_is_there = count > 0 and tonumber(oldest[2]) <= tonumber(ARGV[2])
for i = 1, missing do
  redis.call('ZADD', KEYS[1], (i == 1 and not first_is_there) and ARGV[2] or ARGV[3], 'restored:' .. i)
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
