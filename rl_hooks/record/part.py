"""What every process of the suite does in a run: it gives its users what they need, and takes it back."""

from collections.abc import Callable
from typing import Any

from rl_hooks.record.recording import Recording

EXIT_FAILED, EXIT_SETUP, EXIT_ROWS_LOST = 1, 2, 3
EXIT_MASTER_GONE = 75  # "try again later" (sysexits.h): whoever runs a worker shall start it again
ROWS_REPORTED = "rl_rows"  # in a worker's report to Locust: run id, incarnation, request rows written so far


class Part:
    """One process of Locust. `runtime_for(recording)` makes what the users of a run read as environment.rl_runtime."""

    def __init__(self, environment: Any, runtime_for: Callable[[Recording], Any]) -> None:
        self.environment = environment
        self.runner = environment.runner
        self._runtime_for = runtime_for

    def give_users(self, recording: Recording) -> None:
        self.environment.rl_runtime = self._runtime_for(recording)

    def close(self, recording: Recording) -> None:
        recording.close()
        self.environment.rl_runtime = None  # users that somebody starts by hand shall not write into a closed recording
