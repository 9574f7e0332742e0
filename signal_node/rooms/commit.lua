-- The only writer of rooms: compare the version, then store the record, append its event, set its deadline,
-- note which nodes hold a side, add the line of chat, and tell the nodes concerned. All or nothing.
--
-- All keys share the hash tag of the room's partition. No rule of rooms is here: those are in keepline/room/state.py.
--
-- KEYS  1 record, 2 events, 3 deadlines, 4 chat, 5 trace, then `held` sets to add to, then `held` sets to remove from
-- ARGV  1 version that must be there now (0: none)    2 room id
--       3 new record   4 event                        5 ms at which something is due, or '' for never
--       6 seq of a new line of chat, or ''            7 that line       8 lines to keep
--       9 ms after which record and chat expire, or '' for never         10 events to keep at the most
--      11 how many of the `held` keys are to be added to                 12 PUBLISH or SPUBLISH
--      13 entry of the trace, or '' for none   14 entries of it to keep   15 ms after which it expires
--      then pairs of channel and payload
-- Returns 'done', or else the record that is there now, or nil when there is none.

local current = redis.call('GET', KEYS[1])
if current == ARGV[3] then
  return 'done' -- the same write, tried again because its answer was lost
end
local version = 0
if current then
  version = cjson.decode(current)['version']
end
if version ~= tonumber(ARGV[1]) then
  return current
end

-- What a script did before it fails is not undone. So what could fail does so before anything is written: a key of
-- another type here, and then the line of chat, whose number has to be the highest.
redis.call('XLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
for i = 6, #KEYS do
  redis.call('SCARD', KEYS[i])
end
if ARGV[6] ~= '' then
  redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[8], ARGV[6] .. '-0', 'message', ARGV[7])
end
if ARGV[9] == '' then
  redis.call('SET', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[9])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[10], '*', 'event', ARGV[4])
if ARGV[5] == '' then
  redis.call('ZREM', KEYS[3], ARGV[2])
else
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[2])
end
if ARGV[9] ~= '' then
  redis.call('PEXPIRE', KEYS[4], ARGV[9])
end
local additions = tonumber(ARGV[11])
for i = 6, #KEYS do
  redis.call(i - 5 <= additions and 'SADD' or 'SREM', KEYS[i], ARGV[2])
end
if ARGV[13] ~= '' then
  -- pcall: the trace is for people; that it cannot be written does not make the change undone.
  redis.pcall('XADD', KEYS[5], 'MAXLEN', ARGV[14], '*', 'step', ARGV[13])
  redis.pcall('PEXPIRE', KEYS[5], ARGV[15])
end
for i = 16, #ARGV, 2 do
  -- pcall: a notice may get lost on any way; that one may not be published does not make the change undone.
  redis.pcall(ARGV[12], ARGV[i], ARGV[i + 1])
end
return 'done'
