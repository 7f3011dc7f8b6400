-- One write, by the rule of `delta.apply`. ARGV[1]: the packed delta. `record.lua` stands before this.

local function stamp_at(text, at)
  local counter, tag
  counter, at = integer(text, at + 1)
  tag, at = integer(text, at)
  return counter, tag, at
end

local function delta_of(text)
  local it, at, size = {base = {}, values = {}, additions = {}, names = {}}, select(2, string_at(text, 2, 0xc4)), nil
  size, at = count(text, at, 0x90, 0xdc)
  for i = 1, size do
    local base = {}
    base.counter, base.tag, at = stamp_at(text, at)
    it.base[i] = base
  end
  it.counter, it.tag, at = stamp_at(text, at)
  size, at = count(text, at, 0x80, 0xde)
  for i = 1, size do
    local named, behind, name = at, nil, nil
    name, at = name_at(text, at)
    behind = select(2, string_at(text, at, 0xc4))
    it.values[name] = {name_bytes = sub(text, named, at - 1), bytes = sub(text, at, behind - 1)}
    it.names[i], at = name, behind
  end
  size, at = count(text, at, 0x80, 0xde)
  for _ = 1, size do
    local addition, named, behind, name = {}, at, nil, nil
    name, at = name_at(text, at)
    addition.name_bytes = sub(text, named, at - 1)
    addition.counter, addition.tag, at = stamp_at(text, at)
    behind = select(2, integer(text, at))
    addition.raw, at = sub(text, at, behind - 1), behind
    it.additions[name] = addition
    it.names[#it.names + 1] = name
  end
  return it
end

-- Whether the write is known, or what it builds on is missing; nothing if neither.
local function refusal(it, delta)
  local place = it.places[delta.tag]
  if place and it.counters[place + 1] >= delta.counter then return KNOWN end
  for _, base in ipairs(delta.base) do
    place = it.places[base.tag]
    if not place or it.counters[place + 1] < base.counter then return NEED end
  end
end

-- Enter the write into version and heads; its writer's place.
local function enter(it, delta)
  local superseded, heads = {}, {}
  for _, base in ipairs(delta.base) do
    local place = it.places[base.tag]
    if it.counters[place + 1] == base.counter then superseded[place] = true end
  end
  local mine = it.places[delta.tag] or #it.tags
  it.tags[mine + 1], it.counters[mine + 1], superseded[mine] = delta.tag, delta.counter, true
  for _, place in ipairs(it.heads) do
    if not superseded[place] then heads[#heads + 1] = place end
  end
  heads[#heads + 1] = mine
  it.heads = heads
  return mine
end

-- What the writer knew, by writer: what the write was made on, and all that it wrote before.
local function known_to(delta)
  local known = {[delta.tag] = delta.counter}
  for _, base in ipairs(delta.base) do known[base.tag] = base.counter end
  return known
end

-- The assignments that the write leaves as they are: its writer did not know them.
local function kept(field, known)
  local all = {}
  for _, one in ipairs(field and field.all or {}) do
    if one.counter > (known[one.tag] or 0) then all[#all + 1] = one end
  end
  return all
end

-- The field once its writer has added to it; nothing where what it counts from is not there, or no longer.
local function counted(field, delta, addition, mine)
  local all, new = field and field.all or {}, {place = mine, counter = delta.counter, raw = addition.raw}
  if addition.counter == delta.counter and addition.tag == delta.tag then -- the write began a counter
    all[#all + 1] = {place = mine, counter = delta.counter, tag = delta.tag, value = NOTHING, added = {new}}
    return entry_bytes(sorted(all))
  end
  for _, one in ipairs(all) do
    if one.counter == addition.counter and one.tag == addition.tag then
      local added = {}
      for _, other in ipairs(one.added) do
        if other.place ~= mine then added[#added + 1] = other end
      end
      added[#added + 1] = new
      one.added = added
      return entry_bytes(all)
    end
  end
end

-- The field's entry after the write, GONE, or nothing where it stays as it is.
local function written(field, delta, name, mine, known)
  local value = delta.values[name]
  if not value then return counted(field, delta, delta.additions[name], mine) end
  local all = kept(field, known)
  if value.bytes ~= NOTHING then
    all[#all + 1] = {place = mine, counter = delta.counter, tag = delta.tag, value = value.bytes, added = {}}
  end
  return #all == 0 and GONE or entry_bytes(sorted(all))
end

local function fields_after(it, delta, mine)
  local replaced, added, known = {}, {}, known_to(delta)
  for _, name in ipairs(delta.names) do
    local entry = written(it.fields[name], delta, name, mine, known)
    if entry and it.fields[name] then
      replaced[name] = entry
    elseif entry and entry ~= GONE then
      added[#added + 1] = (delta.values[name] or delta.additions[name]).name_bytes .. entry
    end
  end
  return fields_bytes(it, it.names, replaced, added)
end

local delta = delta_of(change)
local wanted = {}
for _, name in ipairs(delta.names) do wanted[name] = true end
local it, spoilt = held(wanted)
if not it then return answer(NEED + spoilt) end
local outcome, result = refusal(it, delta), nil
if outcome == NEED then return answer(NEED) end
if not outcome then
  local mine = enter(it, delta)
  it.touched, outcome = math.max(it.touched, now), APPLIED
  result = keep(it, it.state < ENDED and fields_after(it, delta, mine))
  if not result then return answer(TOO_MUCH) end
  tell(it)
elseif outcome == KNOWN then
  keep_as_it_is(it)
  result = it.text .. bare_key
end
local head = it.heads[1] + 1
if it.state == LIVE and #it.heads == 1 and it.tags[head] == delta.tag and it.counters[head] == delta.counter then
  return answer(outcome)
end
return answer(outcome, result)
