-- Moves an entry that cannot be written to the dead letters: acknowledged and kept in one step, so that two
-- workers that both give up on it bury it once.
-- KEYS: events, dead letters. ARGV: group, entry id, most letters to keep, then field and value pairs.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4))
return 1
