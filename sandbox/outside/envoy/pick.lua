-- Which instance serves a request, for all six actions, from one table. Before this text stand INSTANCES (per service
-- a list of name, address and declared capacity), SHORT_QUEUE_PER_WORKER and RETRY_AFTER_S.
--
-- Envoy runs it with one worker thread (--concurrency 1), so there is one such table. It is asked when a request comes
-- (envoy_on_request) and when its answer leaves (envoy_on_response); about a client that went away it is told nothing,
-- so a request that is older than its route's timeout is taken off the counts.

local FLAGS_WITHOUT_ANSWER = { UF = true, UC = true, UR = true, LR = true, UPE = true }

local world = nil -- number of the routes; with another one nothing that was learned holds
local told = {} -- what those routes say: decay_s, probe_after_s, timeout_s, check_s
local pools = {} -- service -> its instances, and whose turn it is
local open = {} -- id -> request under way
local oldest, newest = 1, 0 -- ids in `open`, as far as they are still there

local function now_s(handle)
  return tonumber(handle:timestampString(EnvoyTimestampResolution.MICROSECOND)) / 1e6
end

local function new_world(routes)
  world, pools, open, oldest, newest = routes:get("world"), {}, {}, newest + 1, newest
  for _, name in ipairs({ "decay_s", "probe_after_s", "timeout_s", "check_s" }) do told[name] = routes:get(name) end
  for service, instances in pairs(INSTANCES) do
    local pool = { instances = {}, by_name = {}, last = {} }
    for index, one in ipairs(instances) do
      local instance = {
        index = index,
        name = one.name,
        address = one.address,
        capacity = one.capacity,
        workers = nil, -- as it reports itself; nil until it has
        in_flight = 0,
        reported_queue = 0,
        ewma_s = nil, -- peak EWMA of its latency; nil until its first answer
        ewma_at_s = 0,
        seen_s = -math.huge, -- last time it was chosen or answered
        turn_weight = 0, -- of smooth weighted round robin
        sick_until_s = { usual = 0, breaker = 0 }, -- Envoy would not use it: per cluster
      }
      pool.instances[index] = instance
      pool.by_name[one.name] = instance
    end
    pools[service] = pool
  end
end

-- Choosing -----------------------------------------------------------------------------------------------------------

-- The first one after the last taken by this action, around the circle.
local function in_turn(pool, action, candidates)
  local last = pool.last[action] or 0
  local chosen = candidates[1]
  for _, one in ipairs(candidates) do
    if one.index > last then
      chosen = one
      break
    end
  end
  pool.last[action] = chosen.index
  return chosen
end

-- The one of least cost; among equals the one whose turn it is.
local function least(pool, action, candidates, cost)
  local low, equal = math.huge, candidates
  for _, one in ipairs(candidates) do
    local value = cost(one)
    if value < low then
      low, equal = value, { one }
    elseif value == low and low < math.huge then
      equal[#equal + 1] = one
    end
  end
  return in_turn(pool, action, equal)
end

-- Requests of ours that wait there, at least; a queue that was reported cannot outlive the requests in it.
local function queue(one)
  return math.max(math.min(one.reported_queue, one.in_flight), one.in_flight - one.workers)
end

local CHOOSE = {}

function CHOOSE.least_loaded(pool, candidates)
  return least(pool, "least_loaded", candidates, function(one) return one.in_flight end)
end

-- Least latency alone would send everybody to the same instance; one that nobody saw for a while gets one probe.
function CHOOSE.fastest_response(pool, candidates, now)
  local unseen = nil
  for _, one in ipairs(candidates) do
    if one.seen_s <= now - told.probe_after_s and (unseen == nil or one.seen_s < unseen.seen_s) then unseen = one end
  end
  if unseen ~= nil then return unseen end
  return least(pool, "fastest_response", candidates, function(one)
    if one.ewma_s == nil then return one.in_flight == 0 and 0 or math.huge end
    return one.ewma_s * (one.in_flight + 1)
  end)
end

function CHOOSE.round_robin(pool, candidates)
  return in_turn(pool, "round_robin", candidates)
end

function CHOOSE.weighted_capacity(_, candidates)
  local total, chosen = 0, nil
  for _, one in ipairs(candidates) do
    one.turn_weight = one.turn_weight + one.capacity
    total = total + one.capacity
    if chosen == nil or one.turn_weight > chosen.turn_weight then chosen = one end
  end
  chosen.turn_weight = chosen.turn_weight - total
  return chosen
end

-- Those whose breaker is open are no candidates: Envoy ejects them, see `learn_health`.
function CHOOSE.circuit_breaker(pool, candidates)
  return in_turn(pool, "circuit_breaker", candidates)
end

function CHOOSE.backpressure(pool, candidates)
  local short = {}
  for _, one in ipairs(candidates) do
    if one.workers == nil or queue(one) < SHORT_QUEUE_PER_WORKER * one.workers then short[#short + 1] = one end
  end
  if #short == 0 then return nil end
  return least(pool, "backpressure", short, function(one)
    return (one.in_flight + math.min(one.reported_queue, one.in_flight)) / (one.workers or one.capacity)
  end)
end

-- The two clusters of a service have their own opinion about who is sick.
local function cluster_of(action)
  return action == "circuit_breaker" and "breaker" or "usual"
end

-- Instances that Envoy will use, as far as we know; all, when none is left: then Envoy decides.
local function candidates_of(pool, action, now)
  local cluster, found = cluster_of(action), {}
  for _, one in ipairs(pool.instances) do
    if one.sick_until_s[cluster] <= now then found[#found + 1] = one end
  end
  return #found > 0 and found or pool.instances
end

-- Requests -----------------------------------------------------------------------------------------------------------

local function close(id, request)
  open[id] = nil
  if request.instance ~= nil then request.instance.in_flight = request.instance.in_flight - 1 end
end

-- Requests whose client went away never come back: no answer takes longer than its route's timeout.
local function prune(now)
  while oldest <= newest do
    local request = open[oldest]
    if request ~= nil and request.until_s > now then return end
    if request ~= nil then close(oldest, request) end
    oldest = oldest + 1
  end
end

local function add_flag(request, flag)
  request.flags = request.flags == nil and flag or request.flags .. "," .. flag
end

local function trace_id(text)
  if text ~= nil and #text == 32 and not text:find("[^0-9a-f]") then return text end
  return nil
end

local function pinned(pool, request, name)
  if name == nil then return nil end
  local one = pool.by_name[name]
  add_flag(request, one == nil and "unknown_pin" or "pinned")
  return one
end

function envoy_on_request(handle)
  local route = handle:metadata()
  local service = route:get("service")
  if service == nil then return end -- not the shop
  local routes = handle:virtualHost():metadata()
  if routes:get("world") ~= world then new_world(routes) end
  local now = now_s(handle)
  prune(now)

  local headers = handle:headers()
  local action = route:get("action")
  local asked = headers:get("x-rl-action")
  local request = { action = action, sent_s = now, until_s = now + told.timeout_s + 1 }
  local trace = headers:get("x-trace-id")
  request.trace = trace_id(trace)
  request.is_health = headers:get(":path"):find("/actuator/health$") ~= nil
  newest = newest + 1
  open[newest] = request
  handle:streamInfo():dynamicMetadata():set("rl", "id", newest)
  local pool = pools[service]
  if pool == nil then -- an unknown service, which Envoy answers itself
    if CHOOSE[asked] ~= nil then request.action = asked end
    return
  end
  if asked ~= nil and asked ~= action then add_flag(request, "unknown_action") end

  local pin = headers:get("x-lb-pin")
  local chosen = pinned(pool, request, pin) or CHOOSE[action](pool, candidates_of(pool, action, now), now)
  if chosen == nil then
    add_flag(request, "shed")
    request.shed = true
    handle:respond({ [":status"] = "503" }, "All instances of " .. service .. " have long queues: request shed")
    return
  end
  request.pool, request.instance, request.in_flight = pool, chosen, chosen.in_flight
  chosen.in_flight = chosen.in_flight + 1
  chosen.seen_s = now
  handle:setUpstreamOverrideHost(chosen.address, false)
end

-- Answers ------------------------------------------------------------------------------------------------------------

-- A peak counts at once, everything lower sinks in with time.
local function observe_latency(one, now, latency_s)
  if one.ewma_s == nil or latency_s >= one.ewma_s then
    one.ewma_s = latency_s
  else
    local kept = math.exp(-(now - one.ewma_at_s) / told.decay_s)
    one.ewma_s = one.ewma_s * kept + latency_s * (1 - kept)
  end
  one.ewma_at_s = now
  one.seen_s = now
end

-- Envoy went past the chosen instance at the first attempt: it holds it for sick, or its breaker is open. Until the
-- next health check it is not chosen.
local function learn_health(request, served, attempts, now)
  if attempts == 1 and served ~= request.instance then
    request.instance.sick_until_s[cluster_of(request.action)] = now + told.check_s
    add_flag(request, "not_the_chosen")
  end
end

local function number_in(headers, name)
  local text = headers:get(name)
  return text ~= nil and tonumber(text) or nil
end

local function learn(request, headers, now)
  local served = request.pool.by_name[headers:get("x-lb-instance") or ""]
  if served == nil then return end -- Envoy asked nobody
  learn_health(request, served, number_in(headers, "x-lb-attempts") or 0, now)
  if request.is_health or FLAGS_WITHOUT_ANSWER[headers:get("x-lb-flags") or ""] then return end
  observe_latency(served, now, now - request.sent_s)
  served.reported_queue = number_in(headers, "x-queue-depth") or served.reported_queue
  local load = headers:get("endpoint-load-metrics")
  if load ~= nil then served.workers = tonumber(load:match('"workers":(%d+)')) or served.workers end
end

-- The value of a header, or `default` where Envoy had none to tell.
local function known(headers, name, default)
  local value = headers:get(name)
  if value == nil or value == "" or value == "-" then return default end
  return value
end

local function tell(headers, request)
  local flags = known(headers, "x-lb-flags", nil)
  if flags ~= nil then add_flag(request, flags) end
  headers:replace("x-lb-action", request.action)
  headers:replace("x-lb-instance", known(headers, "x-lb-instance", "-"))
  headers:replace("x-lb-upstream-us", known(headers, "x-lb-upstream-us", "0"))
  headers:replace("x-lb-flags", request.flags or "-")
  headers:replace("x-lb-attempts", known(headers, "x-lb-attempts", "0"))
  headers:replace("x-lb-inflight", tostring(request.in_flight or 0))
  headers:replace("x-lb-queue-ms", known(headers, "x-queue-ms", "0"))
  if request.trace ~= nil then headers:replace("x-trace-id", request.trace) end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local found = handle:streamInfo():dynamicMetadata():get("rl")
  local request = found ~= nil and open[found.id] or nil
  if request == nil then
    if found == nil then -- not the shop: nothing of ours
      for _, name in ipairs({ "action", "instance", "upstream-us", "flags", "attempts" }) do
        headers:remove("x-lb-" .. name)
      end
    end
    return
  end
  close(found.id, request)
  if request.pool ~= nil then learn(request, headers, now_s(handle)) end
  local none_asked = headers:get(":status") == "503" and known(headers, "x-lb-instance", nil) == nil
  if request.shed or (none_asked and request.pool ~= nil) then headers:replace("retry-after", RETRY_AFTER_S) end
  tell(headers, request)
end
