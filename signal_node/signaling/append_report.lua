-- Tell the persister of a report, if it is not known yet and its user has not reported the room too often.
--
-- KEYS  1 events   2 ids of the user's reports of the room   3 which report has the chat up to which line
-- ARGV  1 id   2 event   3 reports at the most   4 ms after which they are forgotten   5 events to keep at the most
--       6 the new value of the third key, or ''   7 ms after which that is forgotten
-- Returns 0, or the ms after which the user may report the room again.

if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then
  return 0
end
if redis.call('SCARD', KEYS[2]) >= tonumber(ARGV[3]) then
  return math.max(redis.call('PTTL', KEYS[2]), 1)
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'event', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
if redis.call('PTTL', KEYS[2]) < 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if ARGV[6] ~= '' then
  redis.call('SET', KEYS[3], ARGV[6], 'PX', ARGV[7])
end
return 0
