-- GCRA for a batch of checks, each over several buckets, at one reading of this server's clock.
--
-- Numbers in Lua are doubles, exact up to 2^53, and a TAT in ticks of 1/quota us is beyond that. So times are
-- pairs: whole microseconds, and ticks (0 <= ticks < quota). The result is that of backends/ports/gcra.py, exactly.
--
-- KEYS: the buckets, each once: "us:ticks" of its TAT, or absent, which is full.
-- ARGV[1] (msgpack): {limits, limit_of, checks}
--   limits:   {quota, interval us, interval ticks, tolerance us, tolerance ticks} each
--   limit_of: for each key the index of its limit, from 1
--   checks:   for each check the indexes of its keys, from 1
-- Returns (msgpack) {now us, {for each check: admitted (1 or 0), then for each of its keys us and ticks of its TAT}}
local limits, limit_of, checks = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local us, ticks, dirty = {}, {}, {}

for k = 1, #KEYS do
  us[k], ticks[k] = 0, 0
  if stored[k] then
    local quota, _, _, tolerance, tolerance_ticks = unpack(limits[limit_of[k]])
    local at = string.find(stored[k], ':', 1, true)
    us[k], ticks[k] = tonumber(string.sub(stored[k], 1, at - 1)), tonumber(string.sub(stored[k], at + 1))
    -- No TAT is later than this, unless the clock was set back (a failover): nobody shall wait for it to catch up.
    if us[k] > now + tolerance or (us[k] == now + tolerance and ticks[k] > tolerance_ticks) then
      us[k], ticks[k] = now + tolerance, tolerance_ticks
    end
  end
end

local reply = {}
for c = 1, #checks do
  local keys = checks[c]
  local admitted = 1
  for i = 1, #keys do
    local k = keys[i]
    local quota, interval, interval_ticks, tolerance, tolerance_ticks = unpack(limits[limit_of[k]])
    -- Conforms: TAT + T <= now + tau.
    local later, later_ticks = us[k] + interval, ticks[k] + interval_ticks
    if later_ticks >= quota then later, later_ticks = later + 1, later_ticks - quota end
    if later > now + tolerance or (later == now + tolerance and later_ticks > tolerance_ticks) then admitted = 0 end
  end
  reply[#reply + 1] = admitted
  for i = 1, #keys do
    local k = keys[i]
    if admitted == 1 then
      local quota, interval, interval_ticks = unpack(limits[limit_of[k]])
      if us[k] < now then us[k], ticks[k] = now, 0 end
      us[k], ticks[k] = us[k] + interval, ticks[k] + interval_ticks
      if ticks[k] >= quota then us[k], ticks[k] = us[k] + 1, ticks[k] - quota end
      dirty[k] = true
    end
    reply[#reply + 1] = us[k]
    reply[#reply + 1] = ticks[k]
  end
end

for k in pairs(dirty) do
  -- Until it is full again, rounded up: then it is as good as absent.
  local ms = math.floor((us[k] - now) / 1000) + 1
  redis.call('SET', KEYS[k], string.format('%.0f:%.0f', us[k], ticks[k]), 'PX', string.format('%.0f', ms))
end
return cmsgpack.pack({now, reply})
