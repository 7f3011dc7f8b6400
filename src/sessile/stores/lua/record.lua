-- A session's record inside Redis or Valkey: how it is read, kept and told of. `apply.lua` or `merge.lua` follows.
--
-- One session is one string: the record as `Record.pack` lays it out, its times on this server's clock, and then the session's
-- key. It is parsed by hand, not by cmsgpack: the order of a map matters here, integers exceed 2^53, and unchanged parts are
-- copied byte by byte. Every reader takes a text and a position, returns what it read and the position after it, and raises on
-- malformed bytes.
--
-- KEYS: the session's key. ARGV: the change, rotation_grace_ms, tombstone_keep_ms, the channel, and the inbox to which an end is
-- to be confirmed, or ''.
-- Gives the session's key and an outcome. If the record holds more than the pusher knows of, the record and the time follow.

local byte, char, sub, concat, floor = string.byte, string.char, string.sub, table.concat, math.floor
local number_at, packed = struct.unpack, struct.pack

local LIVE, ROTATED, ENDED, REPLACED = 0, 1, 2, 3
local KNOWN, APPLIED, NEED = 0, 1, 2
local SPOILT = 4 -- added to an outcome where something stood under the key that is no record
local TOO_MUCH = 3 -- in place of an outcome: the record would be beyond these limits
local BYTES_MAX, FIELDS_MAX, WRITERS_MAX = 2 ^ 24 - 2 ^ 17, 16384, 4096 -- as `Record.travels`
local NO_FIELDS = '\128'

local key, change, grace_ms, keep_ms = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local bare_key = sub(key, -16) -- without the prefix of every name in this store
local clock = redis.call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)

-- -- reading ----------------------------------------------------------------------------------------------------------

local function integer(text, at)
  local first = byte(text, at)
  if first < 0x80 then return first, at + 1 end
  if first == 0xcf then return number_at('>I8', text, at + 1) end
  if first >= 0xe0 then return first - 256, at + 1 end
  local size = 2 ^ (first % 4)
  if first >= 0xcc and first < 0xd0 then return number_at('>I' .. size, text, at + 1) end
  if first >= 0xd0 and first < 0xd4 then return number_at('>i' .. size, text, at + 1) end
  error('no integer')
end

-- How many items follow: of a list or map (`short` is the head of an empty one, `long` of one with more than 15).
local function count(text, at, short, long)
  local first = byte(text, at)
  if first >= short and first < short + 16 then return first - short, at + 1 end
  if first == long then return number_at('>I2', text, at + 1) end
  if first == long + 1 then return number_at('>I4', text, at + 1) end
  error('no such list')
end

-- Where the bytes of a string begin, and what is behind them; `short` begins those with one byte for their length.
local function string_at(text, at, short)
  local first, size = byte(text, at), nil
  if short == 0xd9 and first >= 0xa0 and first < 0xc0 then size, at = first - 0xa0, at + 1
  elseif first == short then size, at = number_at('>I1', text, at + 1)
  elseif first == short + 1 then size, at = number_at('>I2', text, at + 1)
  elseif first == short + 2 then size, at = number_at('>I4', text, at + 1)
  else error('no such string') end
  if at + size - 1 > #text then error('cut short') end
  return at, at + size
end

local function name_at(text, at)
  local first = byte(text, at)
  if first >= 0xa0 and first < 0xc0 then return sub(text, at + 1, at + first - 0xa0), at + 1 + first - 0xa0 end
  local from, behind = string_at(text, at, 0xd9)
  return sub(text, from, behind - 1), behind
end

-- All but the fields. Places in the version are counted from 0.
local function record(text)
  if byte(text, 1) ~= 0x99 then error('no record') end
  local it, at, size = {text = text, tags = {}, counters = {}, places = {}, heads = {}}, nil, nil
  it.state, at = integer(text, 2)
  it.idle, at = integer(text, at)
  it.deadline, at = integer(text, at)
  it.touched, at = integer(text, at)
  it.ended, at = integer(text, at)
  it.subject_from = at
  it.subject, at = name_at(text, at)
  it.subject_behind = at
  if it.state < LIVE or it.state > REPLACED then error('no state') end
  size, at = count(text, at, 0x80, 0xde)
  for i = 1, size do
    it.tags[i], at = integer(text, at)
    it.counters[i], at = integer(text, at)
    it.places[it.tags[i]] = i - 1
  end
  size, at = count(text, at, 0x90, 0xdc)
  for i = 1, size do
    it.heads[i], at = integer(text, at)
    if not it.tags[it.heads[i] + 1] then error('no such head') end
  end
  it.fields_from = at
  it.size, it.first_from = count(text, at, 0x80, 0xde)
  return it
end

-- What an assignment's stamp and value are; its value is copied only where it is written.
local function assignment_at(it, text, at)
  local one = {added = {}, text = text}
  one.place, at = integer(text, at)
  one.counter, at = integer(text, at)
  one.tag = one.counter > 0 and it.tags[one.place + 1] or 0
  if one.counter > 0 and one.counter > it.counters[one.place + 1] then error('not covered') end
  one.value_from = at
  return one, at
end

local function value_at(one, text, at)
  one.bytes_from, at = string_at(text, at, 0xc4)
  one.value_behind = at
  return at
end

-- A field: its assignments (`all`), the one with the highest stamp first, each with what was added to it.
local function field_at(it, text, at)
  if byte(text, at) ~= 0x94 then error('no entry') end
  local field, one, size = {entry_from = at}, nil, nil
  one, at = assignment_at(it, text, at + 1)
  at = value_at(one, text, at)
  field.all = {one}
  size, at = count(text, at, 0x90, 0xdc)
  for _ = 1, size do
    if byte(text, at) ~= 0x93 then error('no addition') end
    local other, from = assignment_at(it, text, at + 1)
    local kind = byte(text, from)
    if kind >= 0xc4 and kind <= 0xc6 then
      at = value_at(other, text, from)
      one, field.all[#field.all + 1] = other, other
    else
      other.total, at = integer(text, from)
      one.added[#one.added + 1] =
        {place = other.place, counter = other.counter, total = other.total, raw = sub(text, from, at - 1)}
    end
  end
  field.behind = at
  return field
end

-- The place behind an entry, which is looked at no closer.
local function behind_entry(it, text, at)
  local head, place, counter, kind, size = byte(text, at, at + 4)
  if head == 0x94 and place < 0x80 and counter < 0x80 and kind == 0xc4 then
    local behind = at + 5 + size
    if byte(text, behind) == 0x90 then return behind + 1 end -- as good as always
  end
  return field_at(it, text, at).behind
end

-- Of the fields, those whose names are wanted: by name, and the names in their order.
local function fields_of(it, wanted)
  local text, at, fields, names, name, named = it.text, it.first_from, {}, {}, nil, nil
  for _ = 1, it.size do
    named = at
    name, at = name_at(text, at)
    if wanted[name] then
      local field = field_at(it, text, at)
      field.name_from = named
      fields[name], names[#names + 1], at = field, name, field.behind
    else
      at = behind_entry(it, text, at)
    end
  end
  if at ~= #text + 1 then error('more than a record') end
  it.fields, it.names = fields, names
  return it
end

-- -- writing ----------------------------------------------------------------------------------------------------------

local function integer_bytes(n)
  if n >= 0 then
    if n < 0x80 then return char(n) end
    if n >= 0x100000000 then return packed('>BI8', 0xcf, n) end
    if n < 0x100 then return char(0xcc, n) end
    if n < 0x10000 then return packed('>BI2', 0xcd, n) end
    return packed('>BI4', 0xce, n)
  end
  if n >= -0x20 then return char(n + 0x100) end
  return packed('>Bi8', 0xd3, n)
end

local function count_bytes(size, short, long)
  if size < 16 then return char(short + size) end
  if size < 0x10000 then return packed('>BI2', long, size) end
  return packed('>BI4', long + 1, size)
end

local NOTHING = '\196\0' -- the value of an assignment that has none

local function value_of(one) return one.value or sub(one.text, one.value_from, one.value_behind - 1) end

local function entry_bytes(all)
  local first, out, size = all[1], {}, #all - 1
  for i, one in ipairs(all) do
    size = size + #one.added
    if i > 1 then out[#out + 1] = '\147' .. integer_bytes(one.place) .. integer_bytes(one.counter) .. value_of(one) end
    for _, addition in ipairs(one.added) do
      out[#out + 1] = '\147' .. integer_bytes(addition.place) .. integer_bytes(addition.counter) .. addition.raw
    end
  end
  local head = '\148' .. integer_bytes(first.place) .. integer_bytes(first.counter) .. value_of(first)
  return head .. count_bytes(size, 0x90, 0xdc) .. concat(out)
end

-- Assignments by falling stamps.
local function sorted(all)
  table.sort(all, function(one, other)
    if one.counter ~= other.counter then return one.counter > other.counter end
    return one.tag > other.tag
  end)
  return all
end

local GONE = '' -- in place of an entry: the field is removed

-- The fields of a record, with entries replaced by name, in the order of `names`, and whole new ones (`added`) behind.
local function fields_bytes(it, names, replaced, added)
  local out, from, size = {''}, it.first_from, it.size + #added
  for _, name in ipairs(names) do
    local field, entry = it.fields[name], replaced[name]
    if entry == GONE then
      out[#out + 1] = sub(it.text, from, field.name_from - 1)
      from, size = field.behind, size - 1
    elseif entry then
      out[#out + 1] = sub(it.text, from, field.entry_from - 1)
      out[#out + 1] = entry
      from = field.behind
    end
  end
  out[1] = count_bytes(size, 0x80, 0xde)
  out[#out + 1] = sub(it.text, from)
  for _, bytes in ipairs(added) do out[#out + 1] = bytes end
  return concat(out)
end

-- -- keeping ----------------------------------------------------------------------------------------------------------

-- A session that was rotated a while ago: there is nothing to look at any more.
local function aged(it)
  if it.state == ROTATED and now >= it.ended + grace_ms then it.state = REPLACED end
  return it
end

-- Everything but the fields is made anew.
local function record_bytes(it, fields)
  local out = {
    '\153', integer_bytes(it.state), integer_bytes(it.idle), integer_bytes(it.deadline), integer_bytes(it.touched),
    integer_bytes(it.ended), it.subject_bytes or sub(it.text, it.subject_from, it.subject_behind - 1),
    count_bytes(#it.tags, 0x80, 0xde),
  }
  local at = #out
  for i, tag in ipairs(it.tags) do
    out[at + 1], out[at + 2], at = integer_bytes(tag), integer_bytes(it.counters[i]), at + 2
  end
  at = at + 1
  out[at] = count_bytes(#it.heads, 0x90, 0xdc)
  for _, place in ipairs(it.heads) do
    at = at + 1
    out[at] = integer_bytes(place)
  end
  out[at + 1] = it.state >= ENDED and NO_FIELDS or fields
  return concat(out)
end

-- Whether every server takes it.
local function travels(it, text, fields)
  return #text <= BYTES_MAX and #it.tags <= WRITERS_MAX and (not fields or count(fields, 1, 0x80, 0xde) <= FIELDS_MAX)
end

-- Put it under the key for as long as anybody may want it; its bytes. Nothing, and nothing is put there, if no server could
-- read it. An end always has room: of one that is beyond limits nothing else is kept.
--
-- An end is kept until the session's own deadline, after which no server serves a copy, and for tombstone_keep beyond it: a
-- copy's deadline travels as a duration, so it is late by as long as the message took.
local function keep(it, fields)
  local text = record_bytes(it, fields)
  if not travels(it, text, fields) then
    if it.state == LIVE then return nil end
    it.state, it.tags, it.counters, it.heads = math.max(it.state, ENDED), {}, {}, {}
    text = record_bytes(it, fields)
  end
  local due
  if it.state == LIVE then
    due = math.min(it.touched + it.idle + floor(it.idle / 10 + 0.5), it.deadline)
  else
    due = math.max(it.deadline, it.ended) + math.max(keep_ms, it.state == ROTATED and grace_ms or 0)
  end
  redis.call('SET', key, text .. bare_key, 'PXAT', string.format('%.0f', math.max(due, 1)))
  return text .. bare_key
end

-- Write the same bytes again, with the same time to live. WAIT covers the writes of its connection only, so this makes it count
-- the replicas that have a change which the record already had.
local function keep_as_it_is(it) redis.call('SET', key, it.text .. bare_key, 'KEEPTTL') end

local function tell(it)
  local out = {'\148\196\16', bare_key, integer_bytes(it.state), count_bytes(#it.heads, 0x90, 0xdc)}
  for _, place in ipairs(it.heads) do
    out[#out + 1] = '\146' .. integer_bytes(it.counters[place + 1]) .. integer_bytes(it.tags[place + 1])
  end
  out[#out + 1] = '\196' .. char(#ARGV[5]) .. ARGV[5]
  redis.call('PUBLISH', ARGV[4], concat(out))
end

local function answer(outcome, result)
  if result then return {bare_key, outcome, result, clock} end
  return {bare_key, outcome}
end

-- What stands under the key, with those fields that are wanted; or nothing, and SPOILT where it is no record.
local function held(wanted)
  local text = redis.pcall('GET', key)
  if not text then return nil, 0 end
  if type(text) ~= 'string' or sub(text, -16) ~= bare_key then return nil, SPOILT end
  local is_read, it = pcall(record, sub(text, 1, -17))
  if is_read then is_read, it = pcall(fields_of, it, wanted) end
  if is_read then return aged(it), 0 end
  return nil, SPOILT
end
