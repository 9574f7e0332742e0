-- Put a value in the place of the one that is expected, and of no other.
--
-- KEYS  1 any
-- ARGV  1 expected value, '' for none   2 new value, '' for none
-- Returns 1 when it is done, 0 when another value is there.

local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1
