-- Read cache entries; lay a lease for each that is missing.
--
-- An entry is <epoch>=<value>, a lease <epoch>?<token>, under the same key: one deletion voids either, and what is
-- of another epoch is not there.
--
-- KEYS[1]: the epoch; the others: entries. ARGV: a token, the leases' ms, a new epoch, its ms.
-- Returns for each entry {value, ms left}, 1 (the lease is yours) or 0 (somebody else's).
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[3]
  redis.pcall('SET', KEYS[1], epoch, 'PX', ARGV[4])
end
local values = redis.call('MGET', unpack(KEYS, 2))
local length = #epoch
local reply = {}
for i = 1, #values do
  local value = values[i]
  if value and string.sub(value, 1, length) == epoch then
    if string.sub(value, length + 1, length + 1) == '=' then
      reply[i] = {string.sub(value, length + 2), redis.call('PTTL', KEYS[i + 1])}
    else
      reply[i] = 0
    end
  else
    -- A server that is full refuses: then nobody fills, and what is there is read all the same.
    local laid = redis.pcall('SET', KEYS[i + 1], epoch .. '?' .. ARGV[1], 'PX', ARGV[2])
    reply[i] = laid.err and 0 or 1
  end
end
return reply
