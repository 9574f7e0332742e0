-- Removes consumers that have been silent for long and own nothing. In one step: a consumer that is removed
-- takes its unacknowledged entries with it, so it must own none at that very moment.
-- KEYS: events. ARGV: group, idle ms from which a consumer counts as gone.
local removed = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local fields = {}
  for i = 1, #consumer, 2 do
    fields[consumer[i]] = consumer[i + 1]
  end
  if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
    removed = removed + 1
  end
end
return removed
