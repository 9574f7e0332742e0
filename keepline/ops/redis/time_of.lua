-- The time of the server that has a key.
--
-- KEYS  1 any

return redis.call('TIME')
