"""What is known about the services while a policy serves: the live window, fed by the balancer's access log."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rl_hooks.control import Decision, Sample
from rl_hooks.live import LiveWindow
from rl_hooks.observation import FEATURE_INDEX, FEATURES, Spans
from rl_hooks.sources.access_log import AccessLogFollower
from training.serving.rows import RequestRows

OF_CLIENTS = np.array([feature.source == "client" for feature in FEATURES])
OF_STARTS = [FEATURE_INDEX[name] for name in ("in_flight", "others_in_flight")]


class ServingWindow(LiveWindow):
    """Takes in the log whenever it looks; then `judge(now_ns, sample)` says whether that is fresh enough.

    Without a log (`follower` None) the features that come from requests are not known, and without starts in it the
    requests in flight are not: NaN, never zero.
    """

    def __init__(
        self,
        spans: Spans,
        give_up_ns: int,
        rows: RequestRows,
        follower: AccessLogFollower | None,
        judge: Callable[[int, Sample | None], None],
    ) -> None:
        super().__init__(spans, give_up_ns)
        self._rows = rows
        self._follower = follower
        self._judge = judge

    def take_in(self, t_ns: int) -> None:
        """Read what the log has. Raises OSError when there is no room for rows."""
        if self._follower is not None:
            self._rows.take(self._follower.poll())
        report = self._rows.report(t_ns)
        self.fold(report)
        self.give_up(report.incarnation, self._rows.give_up(t_ns), t_ns)

    def observe(self, t_ns: int, sample: Sample | None) -> npt.NDArray[np.float32]:
        self.take_in(t_ns)
        values = super().observe(t_ns, sample)
        if self._follower is None:
            values[:, OF_CLIENTS] = np.nan
        elif not self._rows.starts_told:
            values[:, OF_STARTS] = np.nan
        self._judge(t_ns, sample)
        return values

    def decided(self, t_ns: int, decisions: Sequence[Decision]) -> None:
        super().decided(t_ns, decisions)
        self._rows.decided(t_ns, decisions)
