-- Take rooms in which something is due. A room that is taken is due again after the lease, unless its commit has
-- moved or cleared the deadline by then: so nothing is lost when the node that took it dies. Redis' own clock decides.
--
-- KEYS  1 deadlines
-- ARGV  1 ms by which a deadline must have passed   2 lease in ms   3 rooms at the most
-- Returns the time in ms, then the room ids.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[3])
for _, room in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], room)
end
table.insert(due, 1, now)
return due
