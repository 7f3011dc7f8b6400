-- The lessees: the servers that may hold leases now.
--
-- KEYS: the set that `beat.lua` keeps. Gives a list of their names.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now), '+inf')
