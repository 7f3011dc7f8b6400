-- Sessions were used: they are to live on from then.
--
-- KEYS: their keys. ARGV: for each, how many milliseconds ago. What is not there, is over, or was used later is left alone.
-- Only the time is written, where it stands in the record, and not the record as a whole.
-- Gives the first key, and the number of sessions that were touched.

local byte, unpack_number, min, floor = string.byte, struct.unpack, math.min, math.floor
local SIZES = {[0xcc] = '>I1', [0xcd] = '>I2', [0xce] = '>I4', [0xcf] = '>I8'}
local HEAD_BYTES = 64 -- state and times, at their longest

local clock = redis.call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)

local function integer(text, at)
  local first = byte(text, at)
  if first < 0x80 then return first, at + 1 end
  return unpack_number(SIZES[first], text, at + 1)
end

local function touch(key, touched)
  local head = redis.call('GETRANGE', key, 0, HEAD_BYTES - 1)
  if byte(head, 1) ~= 0x99 or byte(head, 2) ~= 0 then return 0 end -- no record, or none that lives
  local idle, at = integer(head, 3)
  local deadline
  deadline, at = integer(head, at)
  if byte(head, at) ~= 0xcf or unpack_number('>I8', head, at + 1) >= touched then return 0 end
  redis.call('SETRANGE', key, at, struct.pack('>I8', touched))
  redis.call('PEXPIREAT', key, string.format('%.0f', min(touched + idle + floor(idle / 10 + 0.5), deadline)))
  return 1
end

local count = 0
for i, key in ipairs(KEYS) do
  local is_read, touched = pcall(touch, key, now - ARGV[i])
  if is_read then
    count = count + touched
  elseif type(touched) == 'table' and not touched.err:find('^WRONGTYPE') then
    return touched -- the server refuses
  end
end
return {string.sub(KEYS[1], -16), count}
