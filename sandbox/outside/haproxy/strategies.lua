-- The six strategies of lb-contract/1 for HAProxy 2.6 and later (mode http, nbthread 1).
--
-- All six read one state of the instances: HAProxy's own counters (srv_conn, srv_queue, srv_is_up, srv_weight) and what
-- answers taught (peak-EWMA latency, reported queue, breakers). haproxy.cfg calls
--
--     http-request lua.choose                               in a service's backend: sets txn.server or txn.refusal
--     http-after-response set-var(txn.done) lua.account     once per answer, HAProxy's own errors too
--     http-request use-service lua.metrics                  the metrics of the contract
--
-- and says before `lua-load`, with one `setenv LB_NAME VALUE` each, which backends are services, how many requests a
-- server works on at once, and the numbers of the strategies; times are in seconds.

local MAX_ATTEMPTS = 3

local settings = setmetatable({}, {
    __index = function(known, name)
        local text = os.getenv("LB_" .. name:upper())
        local value = tonumber(text) or error("haproxy.cfg needs `setenv LB_" .. name:upper() .. " NUMBER`")
        known[name] = value
        return value
    end,
})

local services = {}
for name in (os.getenv("LB_SERVICES") or error("haproxy.cfg needs `setenv LB_SERVICES NAME,NAME`")):gmatch("[^,]+") do
    services[name] = { name = name }
end

local workers = {}
for name, number in (os.getenv("LB_WORKERS") or error("haproxy.cfg needs `setenv LB_WORKERS NAME=N,NAME=N`")):gmatch(
    "([^,=]+)=(%d+)"
) do
    workers[name] = tonumber(number)
end

local function time_s()
    local now = core.now()
    return now.sec + now.usec / 1e6
end

-- Fading counts: everything counts half as much after each half-life ------------------------------------------------

local DECAY_PER_S = math.log(2) / settings.breaker_window_half_life_s

local function faded(count, now_s)
    return count.value * math.exp((count.at_s - now_s) * DECAY_PER_S)
end

local function add_one(count, now_s)
    count.value, count.at_s = faded(count, now_s) + 1, now_s
end

-- Breakers: closed, open for a while after failures, half open for one probe at a time -------------------------------

local function new_breaker()
    return {
        state = "closed", epoch = 0, in_row = 0, opened_s = 0, open_s = settings.breaker_open_s, probe_until_s = 0,
        good_probes = 0, bad = { value = 0, at_s = 0 }, total = { value = 0, at_s = 0 },
    }
end

local function breaker_state(breaker, now_s)
    if breaker.state == "open" and now_s - breaker.opened_s >= breaker.open_s then
        breaker.state, breaker.epoch = "half_open", breaker.epoch + 1
        breaker.probe_until_s, breaker.good_probes = 0, 0
    end
    return breaker.state
end

local function breaker_allows(breaker, now_s)
    local state = breaker_state(breaker, now_s)
    return state == "closed" or (state == "half_open" and now_s >= breaker.probe_until_s)
end

-- The ticket of a request ties its result to the state in which it was sent; nil: the result says nothing. A probe whose
-- client goes away has no result (Lua is not told), so the next one is allowed when it would have timed out.
local function breaker_ticket(breaker, now_s, probes)
    local state = breaker_state(breaker, now_s)
    if probes and state == "half_open" then breaker.probe_until_s = now_s + settings.request_timeout_s end
    return (probes or state == "closed") and breaker.epoch or nil
end

local function open_breaker(breaker, now_s)
    breaker.state, breaker.epoch, breaker.opened_s = "open", breaker.epoch + 1, now_s
    breaker.in_row, breaker.bad.value, breaker.total.value = 0, 0, 0
end

local function record_probe(breaker, ok, now_s)
    breaker.probe_until_s = 0
    if not ok then
        breaker.open_s = math.min(settings.breaker_open_max_s, 2 * breaker.open_s)
        open_breaker(breaker, now_s)
        return
    end
    breaker.good_probes = breaker.good_probes + 1
    if breaker.good_probes >= settings.breaker_probes then
        breaker.state, breaker.epoch, breaker.open_s = "closed", breaker.epoch + 1, settings.breaker_open_s
    end
end

local function breaker_record(breaker, ticket, ok, now_s)
    if ticket ~= breaker.epoch or breaker.state == "open" then return end
    if breaker.state == "half_open" then return record_probe(breaker, ok, now_s) end
    add_one(breaker.total, now_s)
    if ok then
        breaker.in_row = 0
        return
    end
    breaker.in_row = breaker.in_row + 1
    add_one(breaker.bad, now_s)
    local total = faded(breaker.total, now_s)
    local too_many = total >= settings.breaker_min_requests
        and faded(breaker.bad, now_s) >= settings.breaker_error_rate * total
    if breaker.in_row >= settings.breaker_consecutive or too_many then open_breaker(breaker, now_s) end
end

-- Instances ---------------------------------------------------------------------------------------------------------

local function new_instance(service, index, name)
    return {
        index = index, name = name, service = service.name,
        workers = workers[name] or error("LB_WORKERS does not say how many workers " .. name .. " has"),
        ewma_s = nil, ewma_at_s = 0, seen_s = -math.huge, reported_queue = 0, turn_weight = 0, breaker = new_breaker(),
        codes = {}, buckets = {}, sum_s = 0, in_flight = 0,
    }
end

core.register_init(function()
    for name, service in pairs(services) do
        local names = {}
        for server in pairs(core.backends[name].servers) do names[#names + 1] = server end
        table.sort(names)
        service.instances, service.by_name = {}, {}
        for index, server in ipairs(names) do
            service.instances[index] = new_instance(service, index, server)
            service.by_name[server] = service.instances[index]
        end
        service.turns, service.retries, service.refused = {}, settings.retry_saved_max, {}
    end
end)

-- BACKEND/SERVER, made anew for every call: HAProxy 2.6 writes into the string that it is given.
local function id_of(instance)
    return instance.service .. "/" .. instance.name
end

-- What HAProxy counts is read anew for every choice; requests that it holds for a server are in flight there, too.
local function count_in_flight(txn, instance)
    instance.in_flight = txn.f:srv_conn(id_of(instance)) + txn.c:srv_queue(id_of(instance))
end

local function healthy(txn, service, tried)
    local found = {}
    for _, instance in ipairs(service.instances) do
        if not tried[instance] and txn.f:srv_is_up(id_of(instance)) == 1 then
            count_in_flight(txn, instance)
            found[#found + 1] = instance
        end
    end
    return found
end

local function observe_latency(instance, now_s, latency_s)
    if not instance.ewma_s or latency_s >= instance.ewma_s then
        instance.ewma_s = latency_s
    else
        local kept = math.exp((instance.ewma_at_s - now_s) / settings.peak_ewma_decay_s)
        instance.ewma_s = instance.ewma_s * kept + latency_s * (1 - kept)
    end
    instance.ewma_at_s, instance.seen_s = now_s, now_s
end

-- A queue that was reported once cannot outlive the requests in it.
local function queue_of(instance)
    return math.max(math.min(instance.reported_queue, instance.in_flight), instance.in_flight - instance.workers)
end

-- Strategies: (service, candidates, now_s, txn) -> instance, or nil to refuse ----------------------------------------

local function take_turn(service, action, candidates)
    local last = service.turns[action] or 0
    local chosen = candidates[1]
    for _, instance in ipairs(candidates) do
        if instance.index > last then
            chosen = instance
            break
        end
    end
    service.turns[action] = chosen.index
    return chosen
end

local function take_least(service, action, candidates, cost_of)
    local low, least = math.huge, {}
    for _, instance in ipairs(candidates) do
        local cost = cost_of(instance)
        if cost < low then low, least = cost, {} end
        if cost == low then least[#least + 1] = instance end
    end
    return take_turn(service, action, least)
end

local function load_of(instance) return instance.in_flight end

local function peak_cost(instance)
    if not instance.ewma_s then return instance.in_flight > 0 and math.huge or 0 end
    return instance.ewma_s * (instance.in_flight + 1)
end

local function pressure(instance)
    return (instance.in_flight + math.min(instance.reported_queue, instance.in_flight)) / instance.workers
end

local strategies = {}

function strategies.least_loaded(service, candidates)
    return take_least(service, "least_loaded", candidates, load_of)
end

function strategies.fastest_response(service, candidates, now_s)
    local unseen
    for _, instance in ipairs(candidates) do
        local overdue = instance.seen_s <= now_s - settings.probe_after_s
        if overdue and (not unseen or instance.seen_s < unseen.seen_s) then unseen = instance end
    end
    return unseen or take_least(service, "fastest_response", candidates, peak_cost)
end

function strategies.round_robin(service, candidates)
    return take_turn(service, "round_robin", candidates)
end

function strategies.weighted_capacity(_, candidates, _, txn)
    local total, chosen = 0, nil
    for _, instance in ipairs(candidates) do
        local weight = txn.f:srv_weight(id_of(instance))
        instance.turn_weight = instance.turn_weight + weight
        total = total + weight
        if not chosen or instance.turn_weight > chosen.turn_weight then chosen = instance end
    end
    chosen.turn_weight = chosen.turn_weight - total
    return chosen
end

function strategies.circuit_breaker(service, candidates, now_s)
    local allowed = {}
    for _, instance in ipairs(candidates) do
        if breaker_allows(instance.breaker, now_s) then allowed[#allowed + 1] = instance end
    end
    return allowed[1] and take_turn(service, "circuit_breaker", allowed)
end

function strategies.backpressure(service, candidates)
    local short = {}
    for _, instance in ipairs(candidates) do
        if queue_of(instance) < settings.short_queue_per_worker * instance.workers then short[#short + 1] = instance end
    end
    return short[1] and take_least(service, "backpressure", short, pressure)
end

local REFUSALS = { circuit_breaker = "breaker_open", backpressure = "shed" }

-- Choosing ----------------------------------------------------------------------------------------------------------

-- A request that may be retried comes through the frontend `again`, once per attempt, always with the same number.
local retried = {}

local function forget_lost_retries()
    while true do
        core.msleep(1000)
        local before_s = time_s() - 2 * settings.request_timeout_s
        for number, exchange in pairs(retried) do
            if exchange.begun_s < before_s then retried[number] = nil end
        end
    end
end
core.register_task(forget_lost_retries)

local function open_exchange(txn, service, now_s)
    local number = txn:get_var("txn.again")
    local exchange = number and retried[number]
    if exchange then return exchange end
    exchange = {
        service = service, action = txn:get_var("txn.action"), tried = {}, attempts = 0, flags = {}, begun_s = now_s,
        number = number, method = txn.f:method(),
    }
    if txn:get_var("txn.unknown_action") then table.insert(exchange.flags, "unknown_action") end
    if number then retried[number] = exchange end
    return exchange
end

local function pinned(txn, exchange)
    local pin = txn:get_var("txn.pin")
    if not pin then return nil end
    local instance = exchange.service.by_name[pin]
    table.insert(exchange.flags, instance and "pinned" or "unknown_pin")
    if instance then count_in_flight(txn, instance) end
    return instance
end

local function refuse(txn, exchange, flag)
    exchange.instance = nil
    table.insert(exchange.flags, flag)
    txn:set_var("txn.refusal", flag)
end

local function choose(txn)
    local now_s = time_s()
    local service = services[txn.f:be_name()]
    local exchange = open_exchange(txn, service, now_s)
    txn:set_priv(exchange)
    local instance = pinned(txn, exchange)
    if not instance then
        local candidates = healthy(txn, service, exchange.tried)
        if #candidates == 0 then return refuse(txn, exchange, "no_healthy_instance") end
        instance = strategies[exchange.action](service, candidates, now_s, txn)
        if not instance then return refuse(txn, exchange, REFUSALS[exchange.action]) end
    end
    local breaks = exchange.action == "circuit_breaker"
    if breaks and exchange.attempts == 0 then
        service.retries = math.min(settings.retry_saved_max, service.retries + settings.retry_earn)
    end
    exchange.instance, exchange.attempts, exchange.sent_s = instance, exchange.attempts + 1, now_s
    exchange.ticket = breaker_ticket(instance.breaker, now_s, breaks)
    exchange.in_flight = instance.in_flight
    instance.seen_s = now_s
    txn:set_var("txn.server", instance.name)
    -- One timeout for all attempts together; in milliseconds, as HAProxy wants it.
    local left_s = exchange.begun_s + settings.request_timeout_s - now_s
    txn:set_var("txn.left_ms", math.max(1, math.floor(left_s * 1000)))
end

core.register_action("choose", { "http-req" }, choose, 0)

-- Answers -----------------------------------------------------------------------------------------------------------

local function count(codes, action, code)
    local key = action .. '",code="' .. code
    codes[key] = (codes[key] or 0) + 1
end

local BOUNDS_S = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }

local function count_latency(instance, latency_s)
    local bucket = 1
    while BOUNDS_S[bucket] and latency_s > BOUNDS_S[bucket] do bucket = bucket + 1 end
    instance.buckets[bucket] = (instance.buckets[bucket] or 0) + 1
    instance.sum_s = instance.sum_s + latency_s
end

-- What happened where the instance did not answer, by the status that HAProxy answers instead.
local function own_flag(code, elapsed_s)
    if code == 504 then return "timeout" end
    if code == 502 then return "reset" end
    return elapsed_s >= settings.queue_timeout_s and "queue_timeout" or "refused"
end

local function may_retry(txn, exchange, flag, now_s)
    if not exchange.number or exchange.attempts >= MAX_ATTEMPTS then return false end
    if exchange.method ~= "GET" and flag ~= "refused" then return false end
    if flag == "timeout" or exchange.service.retries < 1 then return false end
    for _, other in ipairs(exchange.service.instances) do
        local other_one = other ~= exchange.instance and not exchange.tried[other]
        if other_one and txn.f:srv_is_up(id_of(other)) == 1 and breaker_allows(other.breaker, now_s) then
            exchange.service.retries = exchange.service.retries - 1
            return true
        end
    end
    return false
end

local function learn(txn, exchange, code, now_s)
    local instance, flag = exchange.instance, nil
    local waited_ms = math.max(0, tonumber(txn:get_var("txn.waited_ms")) or 0)
    local upstream_s = math.max(0, now_s - exchange.sent_s - waited_ms / 1000)
    if txn:get_var("txn.heard") then
        instance.reported_queue = tonumber(txn.f:res_hdr("x-queue-depth")) or 0
        waited_ms = waited_ms + (tonumber(txn.f:res_hdr("x-queue-ms")) or 0)
        if code >= 500 then flag = "failed" end
    else
        flag = own_flag(code, now_s - exchange.sent_s)
    end
    if flag ~= "refused" and flag ~= "reset" then observe_latency(instance, now_s, upstream_s) end
    breaker_record(instance.breaker, exchange.ticket, code < 500, now_s)
    count(instance.codes, exchange.action, flag == "refused" and 502 or code)
    count_latency(instance, upstream_s)
    if flag then table.insert(exchange.flags, flag) end
    txn:set_var("txn.upstream_us", math.floor(upstream_s * 1e6 + 0.5))
    txn:set_var("txn.queue_ms", string.format("%.3f", waited_ms))
    return flag
end

-- Returns the flags of an answer, or "retry" when nobody shall see it: another instance is asked.
local function account(txn)
    local exchange = txn:get_priv()
    if not exchange then return txn:get_var("txn.unknown_action") and "unknown_action" or "-" end
    local code, now_s = txn.f:status(), time_s()
    local instance = exchange.instance
    txn:set_var("txn.attempts", exchange.attempts)
    if instance then
        local flag = learn(txn, exchange, code, now_s)
        txn:set_var("txn.in_flight", exchange.in_flight)
        if code >= 500 and may_retry(txn, exchange, flag, now_s) then
            exchange.tried[instance] = true
            table.insert(exchange.flags, "retried")
            return "retry"
        end
    else
        count(exchange.service.refused, exchange.action, code)
    end
    if exchange.number then retried[exchange.number] = nil end
    return exchange.flags[1] and table.concat(exchange.flags, ",") or "-"
end

core.register_fetches("account", account)

-- Metrics: the families of the contract ------------------------------------------------------------------------------

local function family(lines, name, kind, help)
    lines[#lines + 1] = "# HELP " .. name .. " " .. help
    lines[#lines + 1] = "# TYPE " .. name .. " " .. kind
end

local function each_instance(visit)
    for name, service in pairs(services) do
        for _, instance in ipairs(service.instances) do
            visit(string.format('service="%s",pod="%s"', name, instance.name), instance)
        end
    end
end

local function request_lines(lines)
    family(lines, "lb_pod_requests_total", "counter", "Requests by instance, the action that chose it, and the code.")
    local function add(labels, codes)
        for key, number in pairs(codes) do
            lines[#lines + 1] = string.format('lb_pod_requests_total{%s,action="%s"} %d', labels, key, number)
        end
    end
    each_instance(function(labels, instance) add(labels, instance.codes) end)
    for name, service in pairs(services) do add(string.format('service="%s",pod="-"', name), service.refused) end
end

local function time_lines(lines)
    local name = "lb_pod_response_time_seconds"
    family(lines, name, "histogram", "Time at the instance as the balancer sees it.")
    each_instance(function(labels, instance)
        local total = 0
        for bucket = 1, #BOUNDS_S + 1 do
            total = total + (instance.buckets[bucket] or 0)
            local bound = BOUNDS_S[bucket] and string.format("%g", BOUNDS_S[bucket]) or "+Inf"
            lines[#lines + 1] = string.format('%s_bucket{%s,le="%s"} %d', name, labels, bound, total)
        end
        lines[#lines + 1] = string.format("%s_sum{%s} %.9g", name, labels, instance.sum_s)
        lines[#lines + 1] = string.format("%s_count{%s} %d", name, labels, total)
    end)
end

local function active_lines(lines, applet)
    family(lines, "lb_pod_active_requests", "gauge", "Requests in flight, as the balancer counts them.")
    each_instance(function(labels, instance)
        count_in_flight(applet, instance)
        lines[#lines + 1] = string.format("lb_pod_active_requests{%s} %d", labels, instance.in_flight)
    end)
end

core.register_service("metrics", "http", function(applet)
    local lines = {}
    request_lines(lines)
    time_lines(lines)
    active_lines(lines, applet)
    local text = table.concat(lines, "\n") .. "\n"
    applet:set_status(200)
    applet:add_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
    applet:add_header("content-length", #text)
    applet:start_response()
    applet:send(text)
end)
