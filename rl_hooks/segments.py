"""Segment files: fixed-width rows in a preallocated memory map, readable after any kill and any cut.

Writing a row is one `struct.pack_into` into a shared map of a file whose blocks are already allocated. Nothing is
buffered, so nothing is flushed: what was written survives `kill -9` of the process, and the row that was being written
does not carry its `seq` yet and is not counted. Blocks are allocated before they are needed because a write into a
sparse map on a full disk is a SIGBUS, not an error one can handle.

    calls                                    in the folder
    writer.append(...)  current segment      <stem>.<n>.open     header, rows, zeros
    writer.maintain()   a spare is ready     <stem>.<n+1>.open   header without a first row
                        full ones sealed     <stem>.<n>.seg      header with count and checksum, rows, nothing else

`append` and `rotate` belong to the recording thread. `maintain` does all that can take long (allocating, checksums,
renaming) and may run in another thread, one call at a time.
"""

import functools
import itertools
import mmap
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_hooks.row import Table

HEADER = struct.Struct("<8sIIQQI28x")  # magic, layout checksum, row bytes, first seq, sealed rows, checksum of the rows
MAGIC = b"RLSEG\x00\x00\x01"
OPEN, SEALED = ".open", ".seg"


@functools.cache
def layout_checksum(table: Table) -> int:
    """Identifies names, order and types of a table's columns, so that rows are never read with another layout."""
    return zlib.crc32(repr([(name, code) for name, code, _ in table.columns]).encode())


class SegmentWriter:
    """Appends the rows of one table of one process incarnation.

    `segment_bytes` is allocated at once, twice: one segment in use and one spare. So when the disk is full this shows
    while there is still a whole segment to write the rows of the requests in flight.
    """

    def __init__(self, folder: Path, stem: str, table: Table, segment_bytes: int) -> None:
        self.table = table
        self._folder = folder
        self._stem = stem
        self._capacity = (segment_bytes - HEADER.size) // table.row_bytes
        self._pack_into = table.struct.pack_into
        self._row_bytes = table.row_bytes
        self._numbers = itertools.count()  # both threads may allocate at the same moment
        self._full: deque[_Segment] = deque()
        self._tails: list[Tail] = []
        self._closed = False
        self.next_seq = 1
        self._spare: _Segment | None = None
        self._current = self._allocate()
        self._start_current()
        self._spare = self._allocate()

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self.next_seq - 1

    @property
    def rows_in_current(self) -> int:
        return (self._offset - HEADER.size) // self._row_bytes

    def append(self, *values: Any) -> None:
        """Write one row; `values` are the columns without `seq`.

        Raises OSError when there is no room and none can be allocated, struct.error when a value does not fit.
        In both cases nothing is written.
        """
        offset = self.place()
        self._pack_into(self.map, offset, *values, self.next_seq)
        self.commit()

    def place(self) -> int:
        """Where in `map` the next row goes. Whoever writes it there, with `next_seq` last, calls `commit` after it."""
        if self._offset == self._end:
            self.rotate()
        return self._offset

    def commit(self) -> None:
        """The row at `place` is complete."""
        self._offset += self._row_bytes
        self.next_seq += 1

    def tail(self) -> "Tail":
        """A view of the rows that are written from now on."""
        tail = Tail(self, self._offset)
        self._tails.append(tail)
        return tail

    def written_since(self, offset: int) -> tuple[bytes, int]:
        """The rows in the current segment from `offset` on, and the offset behind them."""
        return self.map[offset : self._offset], self._offset

    def rotate(self) -> None:
        """Go on in the next segment. Only a slow disk leaves us without a spare: allocating now is late, but safe."""
        spare = self._spare or self._allocate()
        self._spare = None
        for tail in self._tails:
            tail.keep()
        self._current.rows = self.rows_in_current
        self._full.append(self._current)  # last: from here on another thread may seal it
        self._current = spare
        self._start_current()

    def maintain(self) -> None:
        """Seal what is full and have a spare ready. Raises OSError when the disk does not give one."""
        if self._closed:
            return
        if self._spare is None:
            self._spare = self._allocate()
        while self._full:
            self._full.popleft().seal()

    def close(self) -> None:
        """Seal everything that has rows and remove what has none. Writing afterwards is an error."""
        if self._closed:
            return
        self._closed = True
        self._current.rows = self.rows_in_current
        self._end = self._offset
        for segment in (*self._full, self._current):
            segment.seal() if segment.rows else segment.discard()
        self._full.clear()
        if self._spare is not None:
            self._spare.discard()
            self._spare = None

    def _start_current(self) -> None:
        self.map = self._current.map
        self._offset = HEADER.size
        self._end = HEADER.size + self._capacity * self._row_bytes
        self._current.start(self.next_seq)

    def _allocate(self) -> "_Segment":
        if self._closed:
            raise OSError(f"{self._folder}: the segment writer is closed")
        size = HEADER.size + self._capacity * self._row_bytes
        return _Segment(self._folder / f"{self._stem}.{next(self._numbers):06d}{OPEN}", size, self.table)


class Tail:
    """Hands out the rows of a writer as they come, each once, as bytes of whole rows."""

    def __init__(self, writer: SegmentWriter, offset: int) -> None:
        self._writer = writer
        self._offset = offset  # in the current segment
        self._kept: list[bytes] = []  # of segments that are full

    def take(self) -> bytes:
        """The rows written since the last time."""
        self._take_current()
        rows, self._kept = b"".join(self._kept), []
        return rows

    def keep(self) -> None:
        """The writer leaves its current segment: what was not taken yet is kept."""
        self._take_current()
        self._offset = HEADER.size

    def _take_current(self) -> None:
        rows, self._offset = self._writer.written_since(self._offset)
        if rows:
            self._kept.append(rows)


class _Segment:
    """One allocated and mapped file."""

    def __init__(self, path: Path, size: int, table: Table) -> None:
        self.path = path
        self.rows = 0
        self._table = table
        self._first_seq = 0
        self.map = allocate_map(path, size)

    def start(self, first_seq: int) -> None:
        self._first_seq = first_seq
        self._write_header(0, 0)

    def seal(self) -> None:
        """Write row count and checksum, cut the file to its rows and give it its final name."""
        end = HEADER.size + self.rows * self._table.row_bytes
        with memoryview(self.map) as view:
            checksum = zlib.crc32(view[HEADER.size : end])
        self._write_header(self.rows, checksum)
        self.map.close()
        os.truncate(self.path, end)
        self.path.rename(self.path.with_suffix(SEALED))

    def discard(self) -> None:
        self.map.close()
        self.path.unlink(missing_ok=True)

    def _write_header(self, sealed_rows: int, checksum: int) -> None:
        layout = layout_checksum(self._table)
        HEADER.pack_into(self.map, 0, MAGIC, layout, self._table.row_bytes, self._first_seq, sealed_rows, checksum)


def allocate_map(path: Path, size: int) -> mmap.mmap:
    """A new file of `size` zero bytes whose blocks exist, as a shared map. Raises OSError and leaves no file behind."""
    try:
        with path.open("xb+") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            # Writing zeros allocates where the call above does not exist. Where it does, it brings the pages into
            # memory without the interpreter's lock, which would cost a row that is the first on its page 5 us more.
            file.write(bytes(size))
            file.flush()
            return mmap.mmap(file.fileno(), size)
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class SegmentRows:
    """What could be read of one segment file."""

    rows: Any  # structured array, Table.dtype; whole rows only, in order of writing
    first_seq: int  # 0: no row was ever written to it
    damage: str | None  # what is wrong, None when nothing is
    missing_rows: int  # rows the header promises that cannot be trusted or are not there


def read_segment(path: Path, table: Table) -> SegmentRows:
    """Read a segment as far as it goes: any cut yields the whole rows before it, a wrong checksum yields none.

    The rows of an unsealed segment end where the row numbers stop counting on.
    """
    import numpy as np

    content, _ = _content(path)
    nothing = np.empty(0, table.dtype)
    if len(content) < HEADER.size:
        return SegmentRows(nothing, 0, f"{path}: cut inside its header ({len(content)} bytes)", 0)
    magic, layout, row_bytes, first_seq, sealed_rows, checksum = HEADER.unpack_from(content)
    if magic == bytes(len(MAGIC)) and path.suffix == OPEN:
        return SegmentRows(nothing, 0, None, 0)  # a spare that was never used
    if magic != MAGIC:
        return SegmentRows(nothing, 0, f"{path}: not a segment file (wrong first bytes)", 0)
    if (layout, row_bytes) != (layout_checksum(table), table.row_bytes):
        text = f"{path}: its rows have another layout; export it with the version that recorded it"
        return SegmentRows(nothing, first_seq, text, sealed_rows)
    whole = (len(content) - HEADER.size) // table.row_bytes
    rows = np.frombuffer(content, table.dtype, whole, HEADER.size)
    if path.suffix == SEALED and whole >= sealed_rows:
        body = memoryview(content)[HEADER.size : HEADER.size + sealed_rows * table.row_bytes]
        if checksum_function()(body) != checksum:
            return SegmentRows(
                nothing, first_seq, f"{path}: the checksum does not match its {sealed_rows} rows", sealed_rows
            )
        return SegmentRows(rows[:sealed_rows], first_seq, None, 0)
    in_order = rows["seq"] == first_seq + np.arange(whole, dtype=np.uint64)
    written = whole if in_order.all() else int(in_order.argmin())
    if path.suffix == SEALED:
        text = f"{path}: cut after {written} of {sealed_rows} rows"
        return SegmentRows(rows[:written], first_seq, text, sealed_rows - written)
    return SegmentRows(rows[:written], first_seq, None, 0)


@functools.cache
def checksum_function() -> Callable[[memoryview], int]:
    """CRC-32 for reading: isal's gives the same number as zlib's, four times faster; it is in the extra `fast`."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.crc32
    crc32: Callable[[memoryview], int] = isal_zlib.crc32
    return crc32


def worth_keeping(path: Path, table: Table) -> bytes | None:
    """What there is to read in a segment that nobody writes any more, without the empty places behind it; None for a
    spare that was never used."""
    segment = read_segment(path, table)
    content = path.read_bytes()
    if segment.damage is not None:
        return content
    return content[: HEADER.size + len(segment.rows) * table.row_bytes] if segment.first_seq else None


def rows_of(path: Path, table: Table, first: int, count: int) -> Any:
    """Rows that `read_segment` has found good, again and unchecked; also when the file was sealed since."""
    import numpy as np

    begin, size = HEADER.size + first * table.row_bytes, count * table.row_bytes
    try:
        content, offset = _content(path, begin, size)
    except FileNotFoundError:
        content, offset = _content(path.with_suffix(SEALED), begin, size)
    return np.frombuffer(content, table.dtype, count, offset)


def _content(path: Path, begin: int = 0, size: int | None = None) -> "tuple[bytes | mmap.mmap, int]":
    """A part of a file, and where in what is returned it begins.

    A sealed segment never changes, so its pages are used where they are; an open one is cut when it is sealed.
    """
    if path.suffix != SEALED:
        return path.read_bytes(), begin
    with path.open("rb") as file:
        inside = os.fstat(file.fileno()).st_size - begin if size is None else size
        skipped = begin % mmap.ALLOCATIONGRANULARITY
        if inside <= 0:
            return b"", 0
        return mmap.mmap(file.fileno(), inside + skipped, access=mmap.ACCESS_READ, offset=begin - skipped), skipped
