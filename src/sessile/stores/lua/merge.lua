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

-- Whether a copy has seen this write. What stands under no write is older than any.
local function knows(it, tag, counter)
  local place = it.places[tag]
  return counter == 0 or (place ~= nil and it.counters[place + 1] >= counter)
end

-- Another copy's assignment, with its writers' places in the joined version.
local function moved(other, one, joined)
  local result = {counter = one.counter, tag = one.tag, added = {}}
  result.place = one.counter > 0 and joined[one.tag] or 0
  result.text, result.value_from, result.bytes_from, result.value_behind =
    one.text, one.value_from, one.bytes_from, one.value_behind
  for i, addition in ipairs(one.added) do
    local place = joined[other.tags[addition.place + 1]]
    result.added[i] = {place = place, counter = addition.counter, total = addition.total, raw = addition.raw}
  end
  return result
end

-- Sums beyond 2^53 may look equal as numbers; of one sign and size, their bytes are in order.
local function is_greater(one, other)
  if one.counter ~= other.counter then return one.counter > other.counter end
  if one.total ~= other.total then return one.total > other.total end
  return is_less(other.raw, one.raw)
end

local function bytes_of(one) return sub(one.text, one.bytes_from, one.value_behind - 1) end

-- Enter what another copy knows of the same assignment; whether that is more.
local function unite(one, other)
  local at, is_changed = {}, false
  for i, addition in ipairs(one.added) do at[addition.place] = i end
  for _, addition in ipairs(other.added) do
    local i = at[addition.place]
    if not i or is_greater(addition, one.added[i]) then
      one.added[i or #one.added + 1], is_changed = addition, true
    end
  end
  if value_of(one) ~= value_of(other) and is_less(bytes_of(one), bytes_of(other)) then
    one.text, one.value_from, one.bytes_from, one.value_behind =
      other.text, other.value_from, other.bytes_from, other.value_behind
    is_changed = true
  end
  return is_changed
end

-- Of a field's assignments those that the other copy does not know. What it knows and has not, it has removed.
local function unknown(field, other)
  local all = {}
  for _, one in ipairs(field.all) do
    if not knows(other, one.tag, one.counter) then all[#all + 1] = one end
  end
  return all
end

local function moved_all(other, all, joined)
  for i, one in ipairs(all) do all[i] = moved(other, one, joined) end
  return all
end

-- One field of two copies: its entry, GONE, or nothing where ours stays as it is.
local function united(one, ours, other, theirs, joined)
  local all, is_changed, at = {}, false, {}
  for _, each in ipairs(theirs.all) do
    at[each.tag] = at[each.tag] or {}
    at[each.tag][each.counter] = each
  end
  for _, each in ipairs(ours.all) do
    local same = at[each.tag] and at[each.tag][each.counter]
    if same then
      is_changed = unite(each, moved(other, same, joined)) or is_changed
      all[#all + 1] = each
    elseif knows(other, each.tag, each.counter) then
      is_changed = true
    else
      all[#all + 1] = each
    end
  end
  for _, each in ipairs(unknown(theirs, one)) do all[#all + 1], is_changed = moved(other, each, joined), true end
  if not is_changed then return nil end
  return #all == 0 and GONE or entry_bytes(sorted(all))
end

local function joined_fields(one, other, joined)
  local replaced, added, from = {}, {}, other.first_from
  for _, name in ipairs(one.names) do
    if not other.fields[name] then
      local all = unknown(one.fields[name], other)
      if #all == 0 then replaced[name] = GONE
      elseif #all < #one.fields[name].all then replaced[name] = entry_bytes(all) end
    end
  end
  for _, name in ipairs(other.names) do
    local ours, theirs = one.fields[name], other.fields[name]
    if ours then
      replaced[name] = united(one, ours, other, theirs, joined)
    else
      local all = moved_all(other, unknown(theirs, one), joined)
      if #all > 0 then added[#added + 1] = sub(other.text, from, theirs.entry_from - 1) .. entry_bytes(all) end
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
