-- A heartbeat. KEYS[1]: a sorted set of instances by the ms of their last one.
-- ARGV: this instance, for how many ms a heartbeat counts, the ms of this instance's first heartbeat (0: this is it).
-- Returns {now ms, instances alive, other instances heard of since the first heartbeat}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local since = 0
if first > 0 then
  since = redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', first), '+inf')
  if now > first then since = since - 1 end
end
return {now, redis.call('ZCARD', KEYS[1]), since}
