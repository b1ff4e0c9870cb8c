"""What a store is: whole objects under names such as `requests/worker.host.1a2b3c4d.000000.seg`.

An object is there whole or not at all, and putting it again under its name replaces it. That is all that shipping and
fetching need, so a store of another kind is a class with these four methods.

    StoreError            the store refuses, or what it holds is not what was put there; told to the user
      StoreAwayError      it cannot be reached or take anything now; trying again later may help
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class StoreError(Exception):
    """What a store refuses; the message names the place and the way out."""


class StoreAwayError(StoreError):
    """A store that cannot be reached or has no room now."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store says about an object."""

    size: int  # bytes
    sha256: str | None  # hex, of the content; None: it was not put there by us, and nobody said


class Store(Protocol):
    """Every method raises StoreAwayError or StoreError; names have `/` between their parts."""

    def describe(self) -> str:
        """The place, as the user names it."""

    def list(self, below: str) -> Iterator[tuple[str, int]]:
        """Names and sizes of the objects whose names begin with the folder `below`, "" for all."""

    def head(self, name: str) -> Stored | None:
        """What is there under a name, None for nothing."""

    def put(self, name: str, content: bytes, sha256: str) -> None:
        """Put an object there whole, or leave what was there."""

    def get(self, name: str, file: BinaryIO) -> Stored:
        """Write an object's content into `file`; what the store says about it."""
