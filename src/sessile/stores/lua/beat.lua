-- A server that serves copies under leases is there, and hears the channel: it is to hear this, and by that knows that it has
-- heard everything before it.
--
-- KEYS: the set of those servers, each by the moment until which it may hold leases. ARGV: the server's name, for how many
-- milliseconds a lease counts, where the server listens, and what it is to hear.
-- Gives the server's name.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - 1))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2] + 1), ARGV[1])
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return ARGV[1]
