-- Say that a node lives, unless another process that has its name does.
--
-- KEYS  1 heartbeat
-- ARGV  1 process   2 heartbeat   3 its life in ms   4 heartbeat of another process that is known to be gone, or ''
-- Returns an empty table, or the heartbeat of the other process and for how many ms more it lives.

local current = redis.call('GET', KEYS[1])
if current and current ~= ARGV[4] and cjson.decode(current).process ~= ARGV[1] then
  return {current, redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {}
