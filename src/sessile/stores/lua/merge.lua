-- A whole record, by the rules of `record.merge`. ARGV[1]: the packed record, its times as durations. `record.lua` stands
-- before this.

-- By bytes; `<` would go by the locale that the server was started with.
local function is_less(one, other)
  if one == other then return false end
  local from = 1
  while from <= #one and sub(one, from, from + 255) == sub(other, from, from + 255) do from = from + 256 end
  for i = from, from + 255 do
    local a, b = byte(one, i), byte(other, i)
    if a ~= b or not a then return b ~= nil and (a == nil or a < b) end
  end
end

-- Of one copy's heads, as places in the joined version: those that the other one holds for heads as well, or does not know.
local function stay(heads, one, other, joined)
  local theirs = {}
  for _, place in ipairs(other.heads) do theirs[other.tags[place + 1]] = true end
  for _, place in ipairs(one.heads) do
    local tag, counter = one.tags[place + 1], one.counters[place + 1]
    local at = other.places[tag]
    local known = at and other.counters[at + 1] or 0
    if known < counter or (known == counter and theirs[tag]) then heads[joined[tag]] = true end
  end
end

local function joined_heads(one, other, joined)
  local is_head, heads = {}, {}
  stay(is_head, one, other, joined)
  stay(is_head, other, one, joined)
  for place in pairs(is_head) do heads[#heads + 1] = place end
  table.sort(heads)
  return heads
end

local function value_of(it, field) return sub(it.text, field.value_from, field.value_behind - 1) end

-- Another copy's entry, with its writers' places in the joined version.
local function moved(other, field, joined)
  local added = {}
  for i, addition in ipairs(field.added or {}) do
    local place = joined[other.tags[addition.place + 1]]
    added[i] = {place = place, counter = addition.counter, total = addition.total, raw = addition.raw}
  end
  return field.counter > 0 and joined[field.tag] or 0, added
end

local function moved_bytes(other, field, joined)
  local place, added = moved(other, field, joined)
  return entry_bytes(place, field.counter, value_of(other, field), added)
end

-- Sums beyond 2^53 may look equal as numbers; of one sign and size, their bytes are in order.
local function is_greater(one, other)
  if one.counter ~= other.counter then return one.counter > other.counter end
  if one.total ~= other.total then return one.total > other.total end
  return is_less(other.raw, one.raw)
end

-- One field of two copies under the same assignment; nothing where ours holds all of theirs.
local function united(one, ours, other, theirs, joined)
  local added, at, is_changed = {}, {}, false
  for i, addition in ipairs(ours.added or {}) do added[i], at[addition.place] = addition, i end
  for _, addition in ipairs(select(2, moved(other, theirs, joined))) do
    local i = at[addition.place]
    if not i or is_greater(addition, added[i]) then added[i or #added + 1], is_changed = addition, true end
  end
  local value, their_value = value_of(one, ours), value_of(other, theirs)
  if value ~= their_value then
    local bytes = sub(one.text, ours.bytes_from, ours.value_behind - 1)
    if is_less(bytes, sub(other.text, theirs.bytes_from, theirs.value_behind - 1)) then
      value, is_changed = their_value, true
    end
  end
  return is_changed and entry_bytes(ours.place, ours.counter, value, added) or nil
end

local function joined_fields(one, other, joined)
  local replaced, added, from = {}, {}, other.first_from
  for _, name in ipairs(other.names) do
    local ours, theirs = one.fields[name], other.fields[name]
    if not ours then
      added[#added + 1] = sub(other.text, from, theirs.entry_from - 1) .. moved_bytes(other, theirs, joined)
    elseif ours.counter == theirs.counter and ours.tag == theirs.tag then
      replaced[name] = united(one, ours, other, theirs, joined)
    elseif ours.counter < theirs.counter or (ours.counter == theirs.counter and ours.tag < theirs.tag) then
      replaced[name] = moved_bytes(other, theirs, joined)
    end
    from = theirs.behind
  end
  return fields_bytes(one, one.names, replaced, added)
end

-- The join of both: the record, its fields, whether it says more than the one, and whether it says more than the other.
local function join(one, other)
  local it, joined, is_news, is_more = {tags = {}, counters = {}}, {}, other.state > one.state, one.state > other.state
  for i, tag in ipairs(one.tags) do
    it.tags[i], it.counters[i], joined[tag] = tag, one.counters[i], i - 1
    local at = other.places[tag]
    if not at or other.counters[at + 1] < one.counters[i] then is_more = true end
  end
  for i, tag in ipairs(other.tags) do
    local place = joined[tag] or #it.tags
    if not joined[tag] or other.counters[i] > it.counters[place + 1] then
      it.tags[place + 1], it.counters[place + 1], joined[tag], is_news = tag, other.counters[i], place, true
    end
  end
  it.state = math.max(one.state, other.state)
  it.idle, it.deadline = math.min(one.idle, other.idle), math.min(one.deadline, other.deadline)
  it.touched, it.ended = math.max(one.touched, other.touched), math.max(one.ended, other.ended)
  local named = is_less(one.subject, other.subject) and other or one
  it.subject_bytes = sub(named.text, named.subject_from, named.subject_behind - 1)
  it.heads = joined_heads(one, other, joined)
  return it, it.state < ENDED and joined_fields(one, other, joined), is_news, is_more
end

local everything = setmetatable({}, {__index = function() return true end})
local it = record(change)
it.deadline, it.touched = it.deadline + now, it.touched + now
if it.state ~= LIVE then it.ended = it.ended + now end
aged(it)
local one, spoilt = held(everything)
local fields, is_news, is_more
if one then
  it, fields, is_news, is_more = join(one, fields_of(it, everything))
else
  fields, is_news, is_more = sub(change, it.fields_from), true, false
end
local result = keep(it, fields)
if not result then return answer(TOO_MUCH + spoilt) end
if is_news or ARGV[5] ~= '' then tell(it) end -- an awaited end needs confirmations, even if the store had it already
return answer((is_news and APPLIED or KNOWN) + spoilt, is_more and result)
