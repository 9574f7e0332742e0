-- Keep a referral and tell the persister of it, both or neither.
--
-- KEYS  1 referral   2 events
-- ARGV  1 referral, as it is kept and as an event   2 ms after which it expires   3 events to keep at the most
--       4 ms of this server's clock after which it is not kept
-- Returns 1, or 0 when another referral has the code; -1 for what comes too late.

local current = redis.call('GET', KEYS[1])
if current then
  return current == ARGV[1] and 1 or 0 -- the same write, tried again because its answer was lost
end
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[4]) then
  return -1
end
-- First what could fail.
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'event', ARGV[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
