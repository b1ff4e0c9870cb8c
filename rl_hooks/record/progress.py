"""What a person sees while a run goes on: one plain line at every phase and every few seconds."""

from collections.abc import Callable, Mapping

EVERY_S = 10.0  # real seconds between two lines within a phase


class Progress:
    """Prints a line when the phase changes and every ten seconds; `write` takes one line."""

    def __init__(self, duration_s: float, write: Callable[[str], None]) -> None:
        self._duration_s = duration_s
        self._write = write
        self._next_s = 0.0
        self._phase: str | None = None
        self._before = (0.0, 0)  # run time and requests at the line before

    def tick(
        self,
        run_time_s: float,
        phase: str | None,
        users: tuple[Mapping[str, int], Mapping[str, int]],
        requests: tuple[int, int],
        decisions: int,
        rows_lost: int,
    ) -> None:
        """`users`: planned and running per profile; `requests`: sent so far and failed, over all processes."""
        if phase is None or (phase == self._phase and run_time_s < self._next_s):
            return
        self._phase, self._next_s = phase, run_time_s + EVERY_S
        planned, running = (sum(counts.values()) for counts in users)
        sent, failed = requests
        then_s, then_sent = self._before
        rate = (sent - then_sent) / max(run_time_s - then_s, 1e-3)
        self._before = (run_time_s, sent)
        share = f"{100 * failed / sent:.2f} % failed" if sent else "none sent yet"
        self._write(
            f"{_clock(run_time_s)} of {_clock(self._duration_s)}  {phase:<24} {running:>3} of {planned:<3} users  "
            f"{rate:6.0f} requests/s  {share}  {decisions} decisions  {rows_lost} rows lost"
        )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
