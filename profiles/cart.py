"""What a session knows of its cart at the shop: its own lines, and whether something else is in there."""

from collections.abc import Mapping

from scenario.visits import line_quantity


class Cart:
    """The cart of one session. The shop's answers are the truth; this is what was learned from them.

    A shop keeps a cart with the account, so a session may find what an earlier session of the account left behind.
    Such a cart is `foreign` until it is emptied: nothing of it is ordered, or quantities would not follow the profile.
    """

    __slots__ = ("foreign", "largest", "lines", "target")

    def __init__(self, target: int, largest: int) -> None:
        self.target = target  # units at which the session stops adding
        self.largest = largest  # units that the session never goes beyond
        self.lines: dict[str, int] = {}  # sku -> units
        self.foreign = False

    @property
    def units(self) -> int:
        return sum(self.lines.values())

    @property
    def holds_target(self) -> bool:
        return self.units >= self.target

    def quantity_to_add(self) -> int:
        """Units of the next line: an equal part of the target, the last one only what is missing."""
        return max(1, min(line_quantity(self.target), self.target - self.units))

    def change(self, u: float) -> tuple[str, int]:
        """A line and its new quantity for a uniform `u` in [0, 1); another quantity wherever there is room for one.

        The cart then holds between its target and the profile's largest cart. ValueError when it is empty.
        """
        if not self.lines:
            raise ValueError("an empty cart has no line to change")
        position = u * len(self.lines)
        sku = list(self.lines)[int(position)]
        units, quantity = self.units, self.lines[sku]
        lowest = max(1, quantity - max(0, units - self.target))
        highest = max(quantity, quantity + self.largest - units)
        others = [q for q in range(lowest, highest + 1) if q != quantity] or [quantity]
        return sku, others[int((position % 1.0) * len(others))]

    def added(self, sku: str, quantity: int, seen: Mapping[str, int]) -> None:
        """The shop took `quantity` more of `sku` and answered with the cart `seen`."""
        self.lines[sku] = self.lines.get(sku, 0) + quantity
        self.saw(seen)

    def changed(self, sku: str, quantity: int, seen: Mapping[str, int]) -> None:
        """The shop set the line `sku` to `quantity` and answered with the cart `seen`."""
        self.lines[sku] = quantity
        self.saw(seen)

    def saw(self, seen: Mapping[str, int]) -> None:
        """The shop showed the whole cart as sku -> units."""
        self.foreign = any(units > self.lines.get(sku, 0) for sku, units in seen.items())
        if not self.foreign:
            self.lines = {sku: units for sku, units in seen.items() if units > 0}

    def saw_units(self, units: int) -> None:
        """The mini-cart showed a number of units. Fewer than known, but some: the next look at the lines tells."""
        self.foreign = units > self.units
        if units == 0:
            self.lines = {}

    def emptied(self) -> None:
        self.lines = {}
        self.foreign = False
