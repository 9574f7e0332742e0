-- Take rooms in which something is due. A room that is taken is due again after the lease, unless its commit has
-- moved or cleared the deadline by then: so nothing is lost when the node that took it dies.
--
-- KEYS  1 deadlines
-- ARGV  1 time in ms by which a deadline must have passed   2 time in ms at which the lease ends   3 rooms at the most
-- Returns the room ids.

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, room in ipairs(due) do
  redis.call('ZADD', KEYS[1], ARGV[2], room)
end
return due
