-- A beat of a server that serves copies under leases. It is published back to the server, which then knows that it has received
-- everything that was published before.
--
-- KEYS: the set of lessees, the servers that may hold leases, each with the time until which it may. ARGV: the server's name, the
-- time for which a lease counts (ms), the server's inbox, and the message to publish to it.
-- Gives the server's name.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - 1))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2] + 1), ARGV[1])
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return ARGV[1]
