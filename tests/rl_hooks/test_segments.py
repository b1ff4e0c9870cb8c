"""Segments: every whole row survives any kill and any cut, and what is damaged is never passed off as data."""

import importlib.util
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from rl_hooks.row import Table
from rl_hooks.segments import HEADER, SegmentWriter, checksum_function, read_segment

TABLE = Table("things", (("value", "I", "any number"), ("ratio", "f", "any ratio"), ("seq", "Q", "row number")))
OTHER = Table("things", (("value", "I", "any number"), ("rate", "f", "renamed"), ("seq", "Q", "row number")))


def writer(folder: Path, rows_per_segment: int = 8) -> SegmentWriter:
    return SegmentWriter(folder, "local.host.1", TABLE, HEADER.size + rows_per_segment * TABLE.row_bytes)


def sealed(folder: Path, rows: int = 5) -> Path:
    """A folder's only segment, sealed, with `rows` rows of value 10, 11, ..."""
    made = writer(folder)
    for number in range(rows):
        made.append(10 + number, 0.5)
    made.close()
    (path,) = folder.iterdir()
    return path


def values(path: Path) -> list[int]:
    return [int(value) for value in read_segment(path, TABLE).rows["value"]]


def test_rows_are_there_before_anything_is_closed(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.append(7, 0.25)
    made.append(8, 0.75)
    assert values(tmp_path / "local.host.1.000000.open") == [7, 8]


def test_rows_go_on_through_many_segments_without_a_gap(tmp_path: Path) -> None:
    made = writer(tmp_path, rows_per_segment=3)
    for number in range(20):
        made.append(number, 0.0)
        if number % 4 == 0:
            made.maintain()
    made.close()
    files = sorted(tmp_path.iterdir())
    assert {file.suffix for file in files} == {".seg"}
    parts = [read_segment(file, TABLE) for file in files]
    assert [int(value) for part in parts for value in part.rows["value"]] == list(range(20))
    assert [int(seq) for part in parts for seq in part.rows["seq"]] == list(range(1, 21))
    assert all(part.damage is None and part.missing_rows == 0 for part in parts)


def test_a_spare_is_ready_before_it_is_needed(tmp_path: Path) -> None:
    made = writer(tmp_path, rows_per_segment=2)
    assert len(list(tmp_path.iterdir())) == 2
    made.append(1, 0.0)
    made.append(2, 0.0)
    made.append(3, 0.0)  # the spare is in use now
    made.maintain()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "local.host.1.000000.seg",
        "local.host.1.000001.open",
        "local.host.1.000002.open",
    ]


def test_a_row_whose_value_does_not_fit_is_not_written_and_not_counted(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.append(1, 0.0)
    with pytest.raises(struct.error):
        made.append(-1, 0.0)
    assert made.rows == 1
    made.append(2, 0.0)
    assert values(tmp_path / "local.host.1.000000.open") == [1, 2]


def test_nothing_can_be_appended_after_close(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.append(1, 0.0)
    made.close()
    made.close()
    with pytest.raises(OSError, match="is closed"):
        made.append(2, 0.0)
    assert values(tmp_path / "local.host.1.000000.seg") == [1]


@pytest.mark.parametrize("suffix", [".seg", ".open"])
def test_a_cut_at_any_byte_leaves_the_whole_rows_before_it(tmp_path: Path, suffix: str) -> None:
    path = sealed(tmp_path, rows=5)
    content = path.read_bytes()
    cut_file = tmp_path / f"cut.000000{suffix}"
    for size in range(len(content)):
        cut_file.write_bytes(content[:size])
        part = read_segment(cut_file, TABLE)
        whole = max(0, size - HEADER.size) // TABLE.row_bytes
        assert [int(value) for value in part.rows["value"]] == [10, 11, 12, 13, 14][:whole]
        if size < HEADER.size:
            assert part.damage == f"{cut_file}: cut inside its header ({size} bytes)"
        elif suffix == ".seg":
            assert part.damage == f"{cut_file}: cut after {whole} of 5 rows"
            assert part.missing_rows == 5 - whole
        else:
            assert part.damage is None


def test_one_changed_byte_in_a_sealed_segment_is_found(tmp_path: Path) -> None:
    path = sealed(tmp_path, rows=5)
    content = bytearray(path.read_bytes())
    position = random.Random(1).randrange(HEADER.size, len(content))
    content[position] ^= 0x10
    path.write_bytes(content)
    part = read_segment(path, TABLE)
    assert len(part.rows) == 0
    assert part.missing_rows == 5
    assert part.damage == f"{path}: the checksum does not match its 5 rows"


def test_zeros_and_old_bytes_behind_the_last_row_are_not_rows(tmp_path: Path) -> None:
    made = writer(tmp_path, rows_per_segment=4)
    made.append(1, 0.0)
    path = tmp_path / "local.host.1.000000.open"
    content = bytearray(path.read_bytes())
    content[HEADER.size + TABLE.row_bytes] = 9  # a row that a kill cut: a value without its number
    path.write_bytes(content)
    assert values(path) == [1]


def test_a_segment_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    part = read_segment(path, OTHER)
    assert len(part.rows) == 0
    assert part.damage == f"{path}: its rows have another layout; export it with the version that recorded it"


def test_a_file_that_is_no_segment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.000000.seg"
    path.write_bytes(b"something else entirely, and longer than any header of ours could ever be, so read on")
    assert read_segment(path, TABLE).damage == f"{path}: not a segment file (wrong first bytes)"


def test_a_spare_that_was_never_used_is_nothing_and_no_damage(tmp_path: Path) -> None:
    writer(tmp_path)
    part = read_segment(tmp_path / "local.host.1.000001.open", TABLE)
    assert (len(part.rows), part.first_seq, part.damage, part.missing_rows) == (0, 0, None, 0)


def test_the_numpy_layout_is_the_packed_layout() -> None:
    packed = TABLE.struct.pack(3, 0.5, 9)
    (row,) = np.frombuffer(packed, TABLE.dtype)
    assert (int(row["value"]), float(row["ratio"]), int(row["seq"])) == (3, 0.5, 9)


def test_a_tail_hands_out_every_row_once_through_many_segments(tmp_path: Path) -> None:
    made = writer(tmp_path)
    for number in range(3):
        made.append(number, 0.0)
    tail, draw, taken, written = made.tail(), random.Random(1), b"", 0
    for _ in range(200):
        for _ in range(draw.randrange(7)):
            made.append(written, 0.5)
            written += 1
        if draw.random() < 0.1 and made.rows_in_current:
            made.rotate()
        if draw.random() < 0.3:
            taken += tail.take()
        made.maintain()
    taken += tail.take()
    rows = np.frombuffer(taken, TABLE.dtype)
    assert rows["seq"].tolist() == list(range(4, 4 + written))  # those before it was made are not its own
    assert rows["value"].tolist() == list(range(written))
    assert tail.take() == b""


@pytest.mark.formats
@pytest.mark.skipif(
    importlib.util.find_spec("isal") is None, reason="isal is not installed; `make formats` installs it"
)
def test_the_faster_checksum_is_the_same_number() -> None:
    assert checksum_function() is not zlib.crc32
    content = random.Random(1).randbytes(100_000)
    for size in (0, 1, 7, 64, 90, 4095, len(content)):
        assert checksum_function()(memoryview(content)[:size]) == zlib.crc32(content[:size])
