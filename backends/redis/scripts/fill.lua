-- Fill cache entries whose lease is still there.
-- KEYS[1]: the epoch; the others: entries. ARGV: for each a token, a value and its ms.
-- Returns for each entry 1 (stored) or 0 (the lease was void).
local epoch = redis.call('GET', KEYS[1])
local reply = {}
for i = 1, #KEYS - 1 do
  local key = KEYS[i + 1]
  if epoch and redis.call('GET', key) == epoch .. '?' .. ARGV[3 * i - 2] then
    redis.call('SET', key, epoch .. '=' .. ARGV[3 * i - 1], 'PX', ARGV[3 * i])
    reply[i] = 1
  else
    reply[i] = 0
  end
end
return reply
