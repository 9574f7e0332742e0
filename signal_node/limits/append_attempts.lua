-- Tell the persister of failed logins, but never at the cost of rooms: attacks leave the stream half empty.
--
-- KEYS  1 events
-- ARGV  1 event   2 length of the stream from which on nothing is added

if redis.call('XLEN', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('XADD', KEYS[1], '*', 'event', ARGV[1])
end
