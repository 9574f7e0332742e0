-- Add lines to a room's chat wherever they belong: a stream takes only ids that grow, so it is written anew.
--
-- It expires when the record does, if that is to expire.
--
-- KEYS  1 chat   2 record
-- ARGV  1 lines to keep at the most, then pairs of seq and line

local lines, order = {}, {}
local function add(seq, line)
  if not lines[seq] then
    order[#order + 1] = seq
    lines[seq] = line
  end
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  add(tonumber(string.match(entry[1], '^%d+')), entry[2][2])
end
local present = #order
for i = 2, #ARGV, 2 do
  add(tonumber(ARGV[i]), ARGV[i + 1])
end
if #order == present then
  return 0
end
table.sort(order)
redis.call('DEL', KEYS[1])
for i = math.max(1, #order - ARGV[1] + 1), #order do
  redis.call('XADD', KEYS[1], string.format('%d-0', order[i]), 'message', lines[order[i]])
end
local ttl = redis.call('PTTL', KEYS[2])
if ttl > 0 then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
return #order - present
