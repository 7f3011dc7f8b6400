-- Whether the session under a key holds more than the asker has, and if so, the session.
--
-- KEYS: the session's key. ARGV: the version that the asker has, a packed map.
-- Gives the session's key alone if there is no session, with 0 if the asker lacks nothing, else with the record and the time.

local byte, sub = string.byte, string.sub
local have, bare_key = ARGV[1], sub(KEYS[1], -16)

-- The place behind an integer of any size.
local function behind(text, at)
  local first = byte(text, at)
  if first < 0x80 or first >= 0xe0 then return at + 1 end
  return at + 1 + 2 ^ (first % 4)
end

local function version_at(text)
  local at = behind(text, behind(text, behind(text, behind(text, 3)))) -- idle, deadline, touched, ended
  local first = byte(text, at)
  if first < 0xc0 then return at + 1 + first - 0xa0 end
  if first == 0xd9 then return at + 2 + byte(text, at + 1) end
  return at + 3 + struct.unpack('>I2', text, at + 1)
end

-- Writer and counter by writer; a map is read in pairs, however many there are.
local function version(text, at)
  local counters, first, size = {}, byte(text, at), nil
  if first < 0x90 then size, at = first - 0x80, at + 1 else size, at = struct.unpack('>I2', text, at + 1) end
  for _ = 1, size do
    local following, tag, counter = cmsgpack.unpack_limit(text, 2, at - 1)
    counters[tag], at = counter, following < 0 and #text + 1 or following + 1
  end
  return counters
end

-- Live, and all that it holds is known: an end moves no version.
local function is_current(text)
  if byte(text, 1) ~= 0x99 or byte(text, 2) ~= 0 or sub(text, -16) ~= bare_key then return false end
  local at = version_at(text)
  if sub(text, at, at + #have - 1) == have then return true end
  local known = version(have, 1)
  for tag, counter in pairs(version(text, at)) do
    if not known[tag] or known[tag] < counter then return false end
  end
  return true
end

local text = redis.pcall('GET', KEYS[1])
if not text then return {bare_key} end
if type(text) == 'table' then
  if not text.err:find('^WRONGTYPE') then return text end
  text = '' -- no record of ours
end
local is_read, is_known = pcall(is_current, text)
if is_read and is_known then return {bare_key, 0} end
return {bare_key, text, redis.call('TIME')}
