-- wrk ... URL -- BODIES LIMIT: posts the lines of a file, one after another, over one thread's connections.
-- LIMIT: end after so many answers, and send no more; 0: go on for the whole duration.

local bodies, limit, begun, answered = {}, 0, 0, 0
local made = -1 -- wrk makes one request at its start that it does not send

function init(args)
   for line in io.lines(args[1]) do
      bodies[#bodies + 1] = line
   end
   limit = tonumber(args[2])
   if limit > 0 then
      response = function()
         answered = answered + 1
         if answered == limit then
            wrk.thread:stop()
         end
      end
      delay = function() -- asked before every request
         begun = begun + 1
         return begun <= limit and 0 or 3600 * 1000
      end
   end
end

function request()
   made = made + 1
   return wrk.format("POST", nil, { ["content-type"] = "application/json" }, bodies[(made - 1) % #bodies + 1])
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format('\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p95": %.3f, "p99": %.3f}\n',
      summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
