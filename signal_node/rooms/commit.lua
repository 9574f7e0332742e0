-- The only writer of rooms: compare the version, then store the record, append its event, set its deadline,
-- note which nodes hold a side, add the line of chat, and tell the nodes concerned. All or nothing.
--
-- All keys share the hash tag of the room's partition. No rule of rooms is here: those are in keepline/room/state.py.
--
-- Returns 'done', or else the record that is there now, or nil when there is none; 'late' for what comes too late.

local record_key, events_key, deadlines_key, chat_key, trace_key, ended_key = unpack(KEYS)
local HELD = 7 -- from this key on: `held` sets to add the room to, then those to remove it from

local expected_version, -- that must be there now; 0 for no record
  room_id,
  record,
  event,
  due_at, -- ms at which something is due, or '' for never
  line_seq, -- number of a new line of chat, or ''
  line,
  max_lines,
  gone_at, -- ms at which an ended room is to be forgotten, or '' for a live one
  expire_ms, -- after which record, chat and trace of an ended room expire at the latest
  max_events,
  held_additions, -- how many of the `held` sets are to be added to
  publish, -- PUBLISH or SPUBLISH
  step, -- entry of the trace, or '' for none
  max_steps,
  trace_ms, -- after which the trace expires
  not_after = unpack(ARGV, 1, 17) -- ms of this server's clock after which the change is not made, or ''
local NOTICES = 18 -- from this argument on: pairs of channel and payload

local current = redis.call('GET', record_key)
if current == record then
  return 'done' -- the same write, tried again because its answer was lost
end
if not_after ~= '' then
  local time = redis.call('TIME')
  if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(not_after) then
    return 'late'
  end
end
local version = 0
if current then
  version = cjson.decode(current)['version']
end
if version ~= tonumber(expected_version) then
  return current
end

-- What a script did before it fails is not undone. So what could fail does so before anything is written: a key of
-- another type here, and then the line of chat, whose number has to be the highest.
redis.call('XLEN', events_key)
redis.call('ZCARD', deadlines_key)
redis.call('ZCARD', ended_key)
for i = HELD, #KEYS do
  redis.call('SCARD', KEYS[i])
end
if line_seq ~= '' then
  redis.call('XADD', chat_key, 'MAXLEN', max_lines, line_seq .. '-0', 'message', line)
end
if gone_at == '' then
  redis.call('SET', record_key, record)
else
  redis.call('SET', record_key, record, 'PX', expire_ms)
end
redis.call('XADD', events_key, 'MAXLEN', '~', max_events, '*', 'event', event)
if due_at == '' then
  redis.call('ZREM', deadlines_key, room_id)
else
  redis.call('ZADD', deadlines_key, due_at, room_id)
end
if gone_at ~= '' then
  redis.call('ZADD', ended_key, gone_at, room_id)
  redis.call('PEXPIRE', chat_key, expire_ms)
end
local additions = tonumber(held_additions)
for i = HELD, #KEYS do
  redis.call(i < HELD + additions and 'SADD' or 'SREM', KEYS[i], room_id)
end
if step ~= '' then
  -- pcall: the trace is for people; that it cannot be written does not make the change undone.
  redis.pcall('XADD', trace_key, 'MAXLEN', max_steps, '*', 'step', step)
  redis.pcall('PEXPIRE', trace_key, trace_ms)
end
for i = NOTICES, #ARGV, 2 do
  -- pcall: a notice may get lost on any way; that one may not be published does not make the change undone.
  redis.pcall(publish, ARGV[i], ARGV[i + 1])
end
return 'done'
