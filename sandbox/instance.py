"""One instance of a service: worker slots, a bounded queue, a shared CPU, and everything that can go wrong with it.

A request waits in the queue (first in, first out) for a worker, waits there for I/O, computes on the shared CPU, and is
answered by the shop. All computing comes last, so whatever stops the CPU stops every answer, as a stopped world does.

    submit -> [queue] -> worker: I/O, CPU -> work (the shop; may call others, without a worker) -> done

Every request that is submitted ends in exactly one `Ended`, except those that are abandoned.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from random import Random

from sandbox.clock import Clock, Handle
from sandbox.gauges import Deadline, FadingCount, SlidingMean, TimeoutLine
from sandbox.parameters import Parameters
from sandbox.processor import SharedProcessor


class Ended(Enum):
    """How a request ended at the instance."""

    SERVED = "served"  # with an answer of the shop, whatever its status
    FAILED = "failed"  # the handler raised: 500
    FULL = "full"  # no place in the queue: 503
    EXPIRED = "expired"  # waited too long in the queue: 503
    REFUSED = "refused"  # nobody listens: no byte was delivered
    RESET = "reset"  # the instance died with the request in its hands


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that acts on an instance. Several act together: factors multiply, rates combine as independent."""

    latency_factor: float = 1.0  # of the whole demand, > 0
    error_rate: float = 0.0  # [0, 1], answered early with 500
    timeout_rate: float = 0.0  # [0, 1], hangs
    capacity: float = 1.0  # (0, 1], part of workers and cores that is left
    antagonist: float = 0.0  # [0, 0.95], part of the CPU that somebody else takes


NOTHING = Effect()
MAX_ANTAGONIST = 0.95


def combine(effects: list[Effect]) -> Effect:
    """All effects at once.

    >>> combine([Effect(error_rate=0.5), Effect(error_rate=0.5, latency_factor=2.0)])
    Effect(latency_factor=2.0, error_rate=0.75, timeout_rate=0.0, capacity=1.0, antagonist=0.0)
    """
    return Effect(
        latency_factor=math.prod(effect.latency_factor for effect in effects),
        error_rate=1.0 - math.prod(1.0 - effect.error_rate for effect in effects),
        timeout_rate=1.0 - math.prod(1.0 - effect.timeout_rate for effect in effects),
        capacity=math.prod(effect.capacity for effect in effects),
        antagonist=min(MAX_ANTAGONIST, sum(effect.antagonist for effect in effects)),
    )


class _Phase(Enum):
    QUEUED = 1
    IN_WORKER = 2
    CALLING_OTHERS = 3
    OVER = 4


class Job:
    """One request at an instance."""

    __slots__ = ("deadline", "failing", "on_done", "phase", "queue_s", "response", "submitted_s", "work")

    def __init__(self, on_done: Callable[["Job", Ended], None], work: Callable[["Job"], None] | None, now_s: float):
        self.on_done: Callable[[Job, Ended], None] | None = on_done
        self.work = work
        self.phase = _Phase.QUEUED
        self.submitted_s = now_s
        self.queue_s = 0.0
        self.failing = False
        self.deadline: Deadline | None = None
        self.response: object = None  # what the shop answered; set by `Instance.reply`

    @property
    def over(self) -> bool:
        """True when the instance has nothing more to do with it, for example because it died."""
        return self.phase is _Phase.OVER


class Instance:
    """See the module. `cores == workers`: without others on the CPU a worker never waits for it."""

    def __init__(
        self, name: str, clock: Clock, rng: Random, *, workers: int, mean_service_s: float, parameters: Parameters
    ) -> None:
        self.name = name
        self.workers = workers
        self.mean_service_s = mean_service_s
        self.queue_limit = parameters.queue_per_worker * workers
        self.up = True
        self.on_up: Callable[[bool], None] = lambda up: None  # told when it went down, or is there again
        self.started_s = clock.now()
        self.submitted = 0
        self.ended = dict.fromkeys(Ended, 0)
        self.abandoned_in_queue = 0
        self.busy_worker_s = 0.0
        self._clock = clock
        self._rng = rng
        self._parameters = parameters
        self._mu = math.log(mean_service_s) - parameters.demand_sigma**2 / 2
        self._warm_s = float("-inf")
        self._effects: dict[object, Effect] = {}
        self._effect = NOTHING
        self._worker_limit = workers
        self._busy = 0
        self._busy_since_s = self.started_s
        self._queue: deque[Job] = deque()
        self._queued = 0
        self._held: dict[Job, None] = {}  # in a worker or calling others, in order of arrival
        self._queue_timeouts = TimeoutLine(clock, parameters.queue_timeout_s)
        self._cpu: SharedProcessor[Job] = SharedProcessor(clock, float(workers), self._computed)
        self._cpu_load = SlidingMean(self.started_s, parameters.gauge_window_s)
        self._pause_end_s = float("-inf")
        self._pause_timer: Handle | None = None
        self._garbage = 0.0
        self._answers = FadingCount(parameters.rate_half_life_s)
        self._bad_answers = FadingCount(parameters.rate_half_life_s)

    # What can be asked

    @property
    def queue_depth(self) -> int:
        """Requests waiting for a worker."""
        return self._queued

    @property
    def busy(self) -> int:
        """Workers at work."""
        return self._busy

    @property
    def in_flight(self) -> int:
        """Requests inside: waiting, in a worker, or waiting for other services."""
        return self._queued + len(self._held)

    def cpu(self) -> float:
        """CPU utilization over the last second, in [0, 1]: own work, antagonists, and pauses, which take it all."""
        return min(1.0, max(0.0, self._cpu_load.mean(self._clock.now())))

    def memory(self) -> float:
        """Memory utilization, in [0, 1]: a base, what requests inside hold, and garbage that collections clear."""
        if not self.up:
            return 0.0
        return 0.3 + 0.3 * min(1.0, self.in_flight / (self.workers + self.queue_limit)) + 0.3 * self._garbage

    def health(self) -> float:
        """(1 - recent error rate) x (1 - part of the queue in use), 0 when down."""
        if not self.up:
            return 0.0
        now_s = self._clock.now()
        error_rate = self._bad_answers.value(now_s) / (self._answers.value(now_s) + 1.0)
        return (1.0 - error_rate) * max(0.0, 1.0 - self._queued / self.queue_limit)

    def uptime_s(self) -> float:
        """Real seconds since it was last started, 0 when down."""
        return self._clock.now() - self.started_s if self.up else 0.0

    def worker_seconds(self) -> float:
        """Total time that workers were at work until now."""
        return self.busy_worker_s + (self._clock.now() - self._busy_since_s) * self._busy

    # Requests

    def submit(self, on_done: Callable[[Job, Ended], None], work: Callable[[Job], None] | None = None) -> Job:
        """A request arrives. `work(job)` runs when it was computed and leads to one `reply`; None replies at once.

        `on_done(job, ended)` is called once, possibly before this returns (refused, full).
        """
        job = Job(on_done, work, self._clock.now())
        self.submitted += 1
        if not self.up:
            self._end(job, Ended.REFUSED)
        elif self._busy < self._worker_limit:
            self._start(job)
        elif self._queued >= self.queue_limit:
            self._end(job, Ended.FULL)
        else:
            self._queue.append(job)
            self._queued += 1
            job.deadline = self._queue_timeouts.start(partial(self._expire, job))
        return job

    def reply(self, job: Job, response: object) -> None:
        """The shop's answer to `job`; without effect when the instance died in between."""
        if job.phase is _Phase.CALLING_OTHERS:
            job.response = response
            del self._held[job]
            self._end(job, Ended.SERVED)

    def abandon(self, job: Job) -> None:
        """Nobody waits for `job` any more: it leaves the queue; in a worker it runs on, and nobody is told."""
        job.on_done = None
        if job.phase is _Phase.QUEUED:
            self._leave_queue(job)
            job.phase = _Phase.OVER
            self.abandoned_in_queue += 1

    # What happens to it

    def crash(self) -> None:
        """The process dies: everything inside is reset, and connections are refused until `start`."""
        if not self.up:
            return
        self.up = False
        self._mark_busy(0)
        self._cpu.clear()
        if self._pause_timer is not None:
            self._pause_timer.cancel()
            self._pause_timer = None
        self._pause_end_s = float("-inf")
        lost = [job for job in self._queue if job.phase is _Phase.QUEUED] + list(self._held)
        for job in lost:
            if job.phase is _Phase.QUEUED:
                self._leave_queue(job)
        self._queue.clear()
        self._held.clear()
        self._note_load()
        for job in lost:
            self._end(job, Ended.RESET)
        self.on_up(False)

    def start(self) -> None:
        """The process is there again, cold."""
        if self.up:
            return
        self.up = True
        self.started_s = self._clock.now()
        self._warm_s = self.started_s + self._parameters.slow_start_s
        self._garbage = 0.0
        self._answers.clear()
        self._bad_answers.clear()
        self._apply_effects()
        self.on_up(True)

    def pause(self, duration_s: float) -> None:
        """Stop the world: nothing computes and nothing is answered for `duration_s`. Memory is clean afterwards."""
        now_s = self._clock.now()
        if not self.up or now_s + duration_s <= self._pause_end_s:
            return
        self._pause_end_s = now_s + duration_s
        if self._pause_timer is not None:
            self._pause_timer.cancel()
        self._pause_timer = self._clock.call_later(duration_s, self._resume)
        self._apply_effects()

    def set_effect(self, key: object, effect: Effect) -> None:
        """`effect` acts from now on, under `key`; a second one under the same key replaces it."""
        self._effects[key] = effect
        self._apply_effects()

    def remove_effect(self, key: object) -> None:
        """The effect under `key` ends; nothing happens when there is none."""
        if self._effects.pop(key, None) is not None:
            self._apply_effects()

    # Inside

    def _apply_effects(self) -> None:
        self._effect = combine(list(self._effects.values())) if self._effects else NOTHING
        self._worker_limit = max(1, math.floor(self.workers * self._effect.capacity + 1e-9))
        paused = self._pause_timer is not None
        share = 0.0 if paused else self._effect.capacity * (1.0 - self._effect.antagonist)
        self._cpu.set_cores(self.workers * share)
        self._note_load()
        self._start_waiting()

    def _resume(self) -> None:
        self._pause_timer = None
        self._garbage = 0.0
        self._apply_effects()

    def _start_waiting(self) -> None:
        while self._queued and self._busy < self._worker_limit:
            job = self._queue.popleft()
            if job.phase is _Phase.QUEUED:
                self._queued -= 1
                if job.deadline is not None:
                    job.deadline.cancel()
                self._start(job)

    def _start(self, job: Job) -> None:
        now_s = self._clock.now()
        job.phase = _Phase.IN_WORKER
        job.queue_s = now_s - job.submitted_s
        self._held[job] = None
        self._mark_busy(self._busy + 1)
        effect = self._effect
        demand_s = self._rng.lognormvariate(self._mu, self._parameters.demand_sigma) * effect.latency_factor
        if effect.timeout_rate and self._rng.random() < effect.timeout_rate:
            job.failing = True
            self._clock.call_later(self._parameters.hang_s, partial(self._computed, job))
            return
        cpu_s = demand_s * self._parameters.cpu_share * self._coldness(now_s)
        if effect.error_rate and self._rng.random() < effect.error_rate:
            job.failing = True
            self._compute(job, cpu_s * self._parameters.failed_share)
            return
        io_s = demand_s * (1.0 - self._parameters.cpu_share)
        if io_s > 0.0:
            self._clock.call_later(io_s, partial(self._compute, job, cpu_s))
        else:
            self._compute(job, cpu_s)

    def _coldness(self, now_s: float) -> float:
        if now_s >= self._warm_s:
            return 1.0
        cold = (self._warm_s - now_s) / self._parameters.slow_start_s
        return 1.0 + (self._parameters.slow_start_factor - 1.0) * cold

    def _compute(self, job: Job, cpu_s: float) -> None:
        if job.phase is _Phase.IN_WORKER:  # else the instance died while the job waited for I/O
            self._cpu.add(job, cpu_s)
            self._note_load()

    def _computed(self, job: Job) -> None:
        if job.phase is not _Phase.IN_WORKER:
            return
        self._mark_busy(self._busy - 1)
        self._garbage = (self._garbage + 0.004) % 1.0  # every 250 requests a collection too short to be felt
        job.phase = _Phase.CALLING_OTHERS
        self._start_waiting()
        self._note_load()
        if job.failing:
            del self._held[job]
            self._end(job, Ended.FAILED)
        elif job.work is None:
            self.reply(job, None)
        else:
            job.work(job)

    def _expire(self, job: Job) -> None:
        self._leave_queue(job)
        self._end(job, Ended.EXPIRED)

    def _leave_queue(self, job: Job) -> None:
        """It stays in the deque as a dead entry until its turn; the count is what everybody reads."""
        self._queued -= 1
        if job.deadline is not None:
            job.deadline.cancel()
        if self._queued == 0:
            self._queue.clear()

    def _end(self, job: Job, ended: Ended) -> None:
        job.phase = _Phase.OVER
        self.ended[ended] += 1
        if ended is not Ended.REFUSED:
            now_s = self._clock.now()
            self._answers.add(now_s, 1.0)
            if ended is not Ended.SERVED:
                self._bad_answers.add(now_s, 1.0)
        on_done, job.on_done = job.on_done, None
        if on_done is not None:
            on_done(job, ended)

    def _mark_busy(self, busy: int) -> None:
        now_s = self._clock.now()
        self.busy_worker_s += (now_s - self._busy_since_s) * self._busy
        self._busy_since_s = now_s
        self._busy = busy

    def _note_load(self) -> None:
        if not self.up:
            load = 0.0
        elif self._pause_timer is not None:
            load = 1.0
        else:
            load = self._cpu.cores_used / self.workers + self._effect.antagonist
        self._cpu_load.set(self._clock.now(), min(1.0, load))
