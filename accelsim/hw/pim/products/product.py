"""What a product of a tile program is in the banks of one channel: the door for families.

A family's ``programs`` names its products (hw/pim/programs). They say which commands a product
takes, what of it crosses the channel's pins, and where matrices have to lie for it. Nothing else on
the main path asks which family it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.hw.block import Ints
    from accelsim.hw.pim.family import Family
    from accelsim.hw.pim.layouts.families import Heads
    from accelsim.hw.pim.layouts.layout import BankGrid, Layout
    from accelsim.hw.pim.memory import PimDram

Row = tuple[int, int, int, int, int, int]
Spread = Literal["channel", "channels", "heads", "none"]


@dataclass(frozen=True)
class Sweep:
    """A product of a tile program in one channel: ``vectors`` one after the other through the
    global buffer, each with ``n`` rows of the matrix of its own, row by row over the banks. A tile
    has ``results`` sums of ``k`` products. ``abreast``: the one vector has as many parts.

    ``begins``: the sums begin at 0, otherwise where the product before left them; ``ends``: they
    are read out, otherwise the next product goes on with them. ``brings`` its vectors, otherwise
    they are still there. ``columns``: results are those of a matrix's columns.
    """

    vectors: int
    results: int
    n: int
    k: int
    abreast: bool = False
    begins: bool = True
    ends: bool = True
    brings: bool = True
    columns: bool = False

    @property
    def inputs(self) -> int:
        """Elements of a vector in the global buffer."""
        return self.results * self.k


@dataclass(frozen=True)
class Taken:
    """Clocks of a product in one channel until the next can follow (``cycles``) and until its last
    result has been read (``latency``), its commands by name (columns of composites), and how many
    of them whoever commands the banks sends: composites count once, rows are opened by the
    controller."""

    cycles: int
    latency: int
    commands: tuple[tuple[str, int], ...]
    sent: int = 0


@dataclass(frozen=True)
class Share:
    """A product of a channel with some ``outputs`` and ``inputs`` of a weight W[outputs, inputs].

    Its rows are equally far apart; ``outputs`` may have a step. ``begins`` and ``ends`` as in a
    Sweep. ``sums`` numbers the partial sums of an output, which are added up where they are read
    out. ``further``: a part of a product, cut by its outputs, that is not the first.
    """

    channel: int
    outputs: slice
    inputs: slice
    begins: bool = True
    ends: bool = True
    sums: int = 0
    further: bool = False

    @property
    def sweep(self) -> Sweep:
        k = self.inputs.stop - self.inputs.start
        return Sweep(1, 1, len(self.numbers), k, True, self.begins, self.ends)

    @property
    def numbers(self) -> range:
        """Its outputs one by one."""
        return range(self.outputs.start, self.outputs.stop, self.outputs.step or 1)


class Products:
    """Products of a family's banks; what is not overridden is refused by name."""

    host_vectors: ClassVar[bool] = False
    """Whether vectors come over the channel's pins; otherwise they lie in rows of its banks."""
    goes_on: ClassVar[bool] = False
    """Whether a product can go on with the sums, and have the vectors, of the one before."""
    by_columns: ClassVar[bool] = False
    """Whether a vector also meets a matrix's columns, and stays for the next ones."""
    pipelined: ClassVar[bool] = False
    """Whether the next product's commands follow before the last result has been read."""
    tables: ClassVar[bool] = False
    """Whether it multiplies tables, whose rows are read one by one as well (see table_layout)."""
    caches: ClassVar[Spread] = "channel"
    """Where a request's keys and values lie: in one channel, over all channels, each head in a
    channel of its own, or elsewhere."""
    multiplies_weights: ClassVar[bool] = True
    """Whether weights can lie in its banks."""

    def rows(
        self, family: Family, sweep: Sweep, first_row: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        """Commands of a product whose matrix begins at row ``first_row`` of every bank, and whose
        vectors lie in the banks from (row, bank) ``vector`` on, if they lie there."""
        raise AccelsimError(f"family {family.name} computes no products of tile programs")

    def beside_host(
        self, family: Family, sweep: Sweep, column: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        """Commands of a product in a channel where reads and writes go, too: rows that they left
        open are closed before, and what commands do not give is read behind them. The matrix begins
        at a ``column`` of row 0 of its banks."""
        del column
        return self.rows(family, sweep, 0, vector)

    def places(self, memory: PimDram, base: Ints, storage: Ints) -> tuple[Ints, Ints, Ints]:
        """Channel, and row and column of its banks, at which matrices begin; ``storage`` are the
        first address and the bytes [n, 2] of the tensors that they are part of."""
        del storage
        place = memory.address_map.locate(base)
        return place.channel, place.row, place.column

    def taken(self, family: Family, sweep: Sweep) -> Taken | None:
        """What a product takes, refresh included, if it is no matter of its commands alone."""
        del family, sweep
        return None

    def reading(self, family: Family, sweep: Sweep) -> int:
        """Clocks in which results are read behind a product's commands, which do not read them."""
        del family, sweep
        return 0

    def turn(self, family: Family) -> int:
        """Outputs of a channel that come at once; products of fewer take as long."""
        return family.banks

    def pin_bytes(self, family: Family, sweep: Sweep) -> int:
        """What a product moves over the pins of its channel."""
        burst = family.device.organization.column_bytes
        results = sweep.results * sweep.vectors * -(-sweep.n // family.banks) * sweep.ends
        if not self.host_vectors:
            return results * burst
        vector = -(-sweep.inputs * family.units.operand_bits // 8 // burst)
        return (results + sweep.vectors * vector * sweep.brings) * burst

    def weights(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> Layout:
        """Where W[outputs, inputs] lies."""
        del grid, outputs, inputs
        raise AccelsimError(f"family {family.name} keeps no weights of tile programs in its banks")

    def address(self, memory: PimDram, layout: Layout, row: Ints, col: Ints) -> Ints:
        """Bytes from the start of a weight's rows to elements, as tile programs address them."""
        return memory.address(layout.place(row, col))

    def shares(self, family: Family, grid: BankGrid, outputs: int, inputs: int) -> list[Share]:
        """The products with a weight, channel by channel turn about, each channel's in order."""
        del grid, outputs, inputs
        raise AccelsimError(f"family {family.name} multiplies no weights of tile programs")

    def cache(
        self, family: Family, grid: BankGrid, heads: Heads, place: int
    ) -> tuple[Layout, Layout]:
        """Where keys and transposed values of a request lie; ``place`` is its channel, or where
        all channels have a part its turn."""
        del grid, heads, place
        raise AccelsimError(f"family {family.name} keeps no caches of tile programs in its banks")


def table_layout(grid: BankGrid, outputs: int, inputs: int) -> Layout:
    """A table of ``outputs`` rows: one behind the other over channels, then banks, so that equal
    parts of neighbouring rows are always equally far apart."""
    from accelsim.hw.pim.layouts.layout import Digit, Layout

    size, turn = grid.row_elements, grid.channels * grid.banks
    tiles, chunks = -(-outputs // turn), -(-inputs // size)
    digits = (
        Digit("row", grid.channels, "channel"),
        Digit("row", grid.banks, "bank"),
        Digit("row", tiles, "element", size),
        Digit("col", size, "element"),
        Digit("col", chunks, "element", tiles * size),
    )
    return Layout("weights", grid, outputs, inputs, digits)


def table_shares(grid: BankGrid, outputs: int, inputs: int) -> list[Share]:
    """Every channel's rows of a table, a row's length of inputs at a time."""
    return [
        Share(
            channel,
            slice(channel, outputs, grid.channels),
            slice(start, min(start + grid.row_elements, inputs)),
            sums=number,
        )
        for number, start in enumerate(range(0, inputs, grid.row_elements))
        for channel in range(min(grid.channels, outputs))
    ]


def blocks_by_chunks(grid: BankGrid, outputs: int, inputs: int) -> list[Share]:
    """A block of outputs per channel, whole turns of its banks; a row's length of inputs at a time,
    whose sums are partial."""
    block = -(-outputs // (grid.banks * grid.channels)) * grid.banks
    return [
        Share(
            channel,
            slice(first, min(first + block, outputs)),
            slice(start, min(start + grid.row_elements, inputs)),
            sums=number,
        )
        for number, start in enumerate(range(0, inputs, grid.row_elements))
        for channel, first in enumerate(range(0, outputs, block))
    ]
