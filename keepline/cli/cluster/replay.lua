-- Puts a dead letter back among the events, in one step, so that two operators who replay it do so once.
-- KEYS: dead letters, events. ARGV: id of the letter, name of the field that holds the event.
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then
  return 0
end
local event = ''
for i = 1, #letter[2], 2 do
  if letter[2][i] == ARGV[2] then
    event = letter[2][i + 1]
  end
end
redis.call('XADD', KEYS[2], '*', ARGV[2], event)
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
