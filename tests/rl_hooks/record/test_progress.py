"""Progress lines: at every phase and every ten seconds, with rates of the stretch since the line before."""

from rl_hooks.record.progress import Progress

USERS = ({"a": 3, "b": 2}, {"a": 3, "b": 1})


def test_a_line_at_every_phase_and_every_ten_seconds() -> None:
    lines: list[str] = []
    progress = Progress(240, lines.append)
    for second in range(31):
        phase = "morning" if second < 15 else "noon"
        progress.tick(second, phase, USERS, (100 * second, second), decisions=5 * second, rows_lost=0)
    progress.tick(31, None, USERS, (3100, 31), decisions=155, rows_lost=0)
    assert [line.split()[:4] for line in lines] == [
        ["0:00", "of", "4:00", "morning"],
        ["0:10", "of", "4:00", "morning"],
        ["0:15", "of", "4:00", "noon"],
        ["0:25", "of", "4:00", "noon"],
    ]
    assert "none sent yet" in lines[0]
    assert lines[1].split(maxsplit=4)[4] == (
        "4 of 5   users     100 requests/s  1.00 % failed  50 decisions  0 rows lost"
    )
