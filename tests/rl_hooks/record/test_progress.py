"""Progress lines: at every phase and every ten seconds, with rates of the stretch since the line before."""

from rl_hooks.record.progress import CLEAR, Now, Progress


def now(second: int, phase: str | None = "morning", **special: object) -> Now:
    facts = {
        "planned": {"a": 3, "b": 2},
        "running": {"a": 3, "b": 1},
        "sent": 100 * second,
        "failed": second,
        "rows": 99 * second,
        "rows_lost": 0,
        "decisions": 5 * second,
        **special,
    }
    return Now(run_time_s=second, phase=phase, **facts)  # type: ignore[arg-type]


def test_a_line_at_every_phase_and_every_ten_seconds() -> None:
    lines: list[str] = []
    progress = Progress(240, lines.append)
    for second in range(31):
        progress.tick(now(second, "morning" if second < 15 else "noon"))
    progress.tick(now(31, None))
    assert [line.split()[:6] for line in lines] == [
        ["0:00", "of", "4:00,", "4:00", "left", "morning"],
        ["0:10", "of", "4:00,", "3:50", "left", "morning"],
        ["0:15", "of", "4:00,", "3:45", "left", "noon"],
        ["0:25", "of", "4:00,", "3:35", "left", "noon"],
    ]
    assert "none sent yet" in lines[0]
    assert lines[1].split(maxsplit=6)[6] == (
        "4 of 5   users     100 requests/s  1.00 % failed  990 rows, 0 lost  50 decisions\n"
    )


def test_faults_in_force_are_named() -> None:
    lines: list[str] = []
    Progress(240, lines.append).tick(now(0, faults=("cart-service latency 5", "order-service crash")))
    assert lines[0].endswith("  0 decisions  faults: cart-service latency 5, order-service crash\n")


def test_on_a_terminal_a_line_is_written_anew_every_second_and_leaves_nothing_behind() -> None:
    written: list[str] = []
    progress = Progress(240, written.append, on_terminal=True)
    for second in range(12):
        progress.tick(now(second))
    assert [text[-1] for text in written] == ["\n", *"\r" * 9, "\n", "\r"]
    assert all(text.startswith(CLEAR) for text in written)
    assert all(" 100 requests/s" in text for text in written[1:])  # of the last second, not since the last line
