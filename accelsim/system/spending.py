"""What steps take, so that they can be added: time, energy of the memory, accesses of rows."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Spent:
    """Seconds that pass; seconds in which channels and ASIC are busy, which may overlap; energy of
    commands and open rows, and of the arithmetic; column accesses and rows opened for them."""

    seconds: float = 0.0
    pim_seconds: float = 0.0
    asic_seconds: float = 0.0
    pim_joules: float = 0.0
    mac_joules: float = 0.0
    columns: int = 0
    rows: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, count: int) -> Spent:
        """So many of them, one after the other."""
        return Spent(*(getattr(self, f.name) * count for f in fields(self)))

    @property
    def row_hits(self) -> float:
        """Column accesses that find their row open."""
        return 1 - self.rows / self.columns if self.columns else 0.0

    @property
    def beside_products(self) -> float:
        """Share of the time in which no product is in work."""
        return 1 - self.pim_seconds / self.seconds if self.seconds else 0.0


NOTHING = Spent()
