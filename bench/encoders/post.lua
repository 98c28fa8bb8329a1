-- wrk ... URL -- BODIES LIMIT SPAN: posts the lines of a file, one after another, over one thread's connections.
-- LIMIT: send no more than so many requests, none after SPAN seconds, and end with the last answer; 0: go on for
-- the whole duration.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } timespec; int clock_gettime(int, timespec *);")

local result = '\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p95": %.3f, "p99": %.3f}\n'
local bodies, limit, span, begun, answered, failed, first = {}, 0, 0, 0, 0, 0, 0
local made = -1 -- wrk makes one request at its start that it does not send

local function now()
   local time = ffi.new("timespec")
   ffi.C.clock_gettime(1, time)
   return tonumber(time.s) + tonumber(time.ns) / 1e9
end

local function is_over()
   return begun == limit or now() - first > span
end

local function end_if_last() -- wrk itself would sit out its duration
   if is_over() and answered == begun then
      io.write(result:format(answered, now() - first, failed, 0, 0, 0))
      io.flush()
      os.exit(0)
   end
end

local function count(status)
   answered = answered + 1
   if status < 200 or status > 299 then
      failed = failed + 1
   end
   end_if_last()
end

local function wait() -- before every request, in ms
   first = begun == 0 and now() or first
   if is_over() then
      end_if_last() -- the time may have passed since the last answer
      return 3600 * 1000
   end
   begun = begun + 1
   return 0
end

function init(args)
   for line in io.lines(args[1]) do
      bodies[#bodies + 1] = line
   end
   limit, span = tonumber(args[2]), tonumber(args[3])
   if limit > 0 then
      response, delay = count, wait
   end
end

function request()
   made = made + 1
   return wrk.format("POST", nil, { ["content-type"] = "application/json" }, bodies[(made - 1) % #bodies + 1])
end

function done(summary, latency)
   local e = summary.errors
   local lost = e.connect + e.read + e.write + e.status + e.timeout
   io.write(result:format(summary.requests, summary.duration / 1e6, limit > 0 and failed or lost,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
