"""Where bit planes lie in banks that compute in their cells: one operand for each bit line.

A bank is stripes of rows that share their bit lines' sense amplifiers (a row of subarrays side by
side). In every stripe, from row 0 on: the operands that lie there for good, the planes of the
operand that all of them meet (x), those of the products, and the rows reserved for computing.

    bit b of element k of output m: row ... + b, lane (m's segment) + k

Outputs take turns over the banks of a channel, then over channels; then they lie side by side in a
row, in the stripes that work at once, in further planes, in further stripes.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.errors import AccelsimError, CapacityError
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.layout import BankGrid, Digit, Layout
from accelsim.hw.pim.programs.cell_sequences import RESERVED_ROWS


@dataclass(frozen=True)
class BitPlanes:
    """Banks of a ``grid`` of single bits, operands of ``bits``; ``at_once`` of the stripes of
    ``stripe_rows`` rows each do the same operation at a time."""

    grid: BankGrid
    stripe_rows: int
    at_once: int
    bits: int = 8

    def __post_init__(self) -> None:
        stripes = self.grid.rows // self.stripe_rows
        if self.grid.bits != 1 or not 1 <= self.at_once <= stripes or stripes % self.at_once:
            raise AccelsimError(
                f"{self.at_once} of {stripes} stripes at once, elements of {self.grid.bits} bits;"
                " accepted: a divisor of the stripes, single bits"
            )

    @property
    def lanes(self) -> int:
        """Bit lines of a row."""
        return self.grid.row_elements

    @property
    def all_banks(self) -> int:
        return self.grid.channels * self.grid.banks

    def chunks(self, elements: int) -> int:
        """Rows of lanes that so many elements take."""
        return -(-elements // self.lanes)

    def abreast(self, elements: int) -> int:
        """Outputs side by side in a row."""
        return max(1, self.lanes // elements)

    def sets(self, elements: int) -> int:
        """Outputs above each other in a stripe."""
        planes = self.bits * self.chunks(elements)
        found = (self.stripe_rows - RESERVED_ROWS - 2 * self.bits - planes) // planes
        if found < 1:
            most = self.lanes * ((self.stripe_rows - RESERVED_ROWS - 2 * self.bits) // self.bits)
            raise CapacityError(
                f"a sum over {elements:,} elements of {self.bits} bits in one bank; accepted: up to"
                f" {most // 2:,}"
            )
        return found

    def first_shared(self, elements: int) -> int:
        """The row of a stripe where the planes of x begin."""
        return self.sets(elements) * self.chunks(elements) * self.bits

    def first_product(self, elements: int) -> int:
        """The row of a stripe where the planes of products begin."""
        return self.first_shared(elements) + self.chunks(elements) * self.bits

    def tiles(self, outputs: int, elements: int) -> int:
        """Rows that so many outputs of a bank take."""
        return -(-outputs // self.abreast(elements))

    def check_outputs(self, outputs: int, elements: int) -> None:
        """Raise CapacityError if a bank does not hold so many sums of so many products."""
        stripes = self.grid.rows // self.stripe_rows
        most = stripes * self.sets(elements) * self.abreast(elements)
        if outputs > most:
            raise CapacityError(
                f"{outputs:,} sums of {elements:,} products in every bank; accepted: up to {most:,}"
            )

    def matrix(self, rows: int, cols: int) -> Layout:
        """A matrix whose rows are multiplied with one vector; its columns are cols x bits."""
        chunks = self.chunks(cols)
        self.check_outputs(-(-rows // self.all_banks), cols)
        digits = (
            Digit("row", self.grid.banks, "bank"),
            Digit("row", self.grid.channels, "channel"),
            *self._outputs(rows, cols, chunks),
            Digit("col", self.bits, "element", self.lanes),
            Digit("col", min(cols, self.lanes), "element"),
            Digit("col", chunks, "element", self.bits * self.lanes),
        )
        return Layout("planes", self.grid, rows, cols * self.bits, digits)

    def by_tokens(self, rows: int, tokens: int) -> Layout:
        """A matrix [rows, tokens] whose tokens are dealt to the banks, as token sharding has it."""
        own = -(-tokens // self.all_banks)
        chunks = self.chunks(own)
        self.check_outputs(rows, own)
        digits = (
            *self._outputs(rows, own, chunks),
            Digit("col", self.bits, "element", self.lanes),
            Digit("col", self.grid.banks, "bank"),
            Digit("col", self.grid.channels, "channel"),
            Digit("col", min(own, self.lanes), "element"),
            Digit("col", chunks, "element", self.bits * self.lanes),
        )
        return Layout("planes by tokens", self.grid, rows, tokens * self.bits, digits)

    def _outputs(self, rows: int, cols: int, chunks: int) -> tuple[Digit, ...]:
        """Outputs within a bank: side by side, over stripes, above each other, further stripes."""
        stripe = self.stripe_rows * self.lanes
        stripes = self.grid.rows // self.stripe_rows
        return (
            Digit("row", self.abreast(cols), "element", min(cols, self.lanes)),
            Digit("row", self.at_once, "element", stripe),
            Digit("row", self.sets(cols), "element", chunks * self.bits * self.lanes),
            Digit("row", stripes // self.at_once, "element", self.at_once * stripe),
        )

    def row(self, tile: int, elements: int) -> tuple[int, int]:
        """(first row of its stripe, first row of its operands) of a bank's tile of outputs."""
        rest, stripe = divmod(tile, self.at_once)
        group, above = divmod(rest, self.sets(elements))
        first = (group * self.at_once + stripe) * self.stripe_rows
        return first, first + above * self.chunks(elements) * self.bits


def planes_of(family: Family) -> BitPlanes:
    """The banks of a family that computes in its cells."""
    parts = family.device.organization
    grid = BankGrid(
        family.channels, family.banks, parts.rows, parts.row_bytes, parts.column_bytes, bits=1
    )
    bits = family.units.operand_bits
    return BitPlanes(grid, family.figure("stripe_rows"), family.figure("stripes"), bits)
