-- Take away what is left of a room that has ended, unless its end has been written again since it was taken.
--
-- After a failover to an older state the room may live: the record of a live room does not expire.
--
-- KEYS  1 record   2 chat   3 trace   4 rooms that have ended
-- ARGV  1 room id   2 time in ms until which it was taken

if tonumber(redis.call('ZSCORE', KEYS[4], ARGV[1])) ~= tonumber(ARGV[2]) then
  return
end
if redis.call('PTTL', KEYS[1]) ~= -1 then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end
redis.call('ZREM', KEYS[4], ARGV[1])
