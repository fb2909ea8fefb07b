"""Layouts of weights, keys and values in the families of memories that compute.

    newton, neupims  W [out, in]: outputs over the banks of all channels, inputs along rows, chunk
                     by chunk of a row
                     K [tokens, heads x d]: a request lies in one channel; tokens over its banks,
                     heads side by side along rows, chunk by chunk
                     V^T [heads x d, tokens]: features over the banks, tokens along rows, head by
                     head
    aim, pim-gpt     W: outputs in blocks over channels, in each over banks, the rows of an output
                     one behind the other (aim) or chunk by chunk (pim-gpt); K and V^T over the
                     banks of all channels, chunk by chunk
    attacc           a head in one channel, of which banks come in groups (pseudo-channel, rank,
                     bank group) of four: K: tokens over groups, features over the banks of one, 16
                     at a time; V^T: pairs of tokens over groups, 16 features side by side, as lanes
                     multiply them, in the second half of the banks
    hbm-pim          W: 128 inputs in even banks, the next 128 in odd ones; 8 outputs per pair of
                     banks, one per register

Caches have room for as many tokens as are asked for, so that a request grows into it.

Sources: He et al., Newton, MICRO 2020; Heo et al., NeuPIMs, ASPLOS 2024, section 5; Wu et al.,
PIM-GPT, npj Unconventional Computing 2024, section on mapping (heads side by side, reserved room,
chunks of a row); Kwon et al., GDDR6-AiM, ISSCC 2022; Park et al., AttAcc, ASPLOS 2024, and the
commands of its published traces (numbers of columns and groups); Lee et al., HBM-PIM, ISCA 2021.
Which token of a head lies in which group of AttAcc is not published: here they take turns, and
two neighbouring columns of a bank are filled before the next group's, so that keys and values are
both plain windows of addresses under one map (hw/pim/memory).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from accelsim.errors import AccelsimError, CapacityError, unknown
from accelsim.hw.pim.layouts.layout import BankGrid, Digit, Layout

GROUP_BANKS = 4
"""Banks of an AttAcc group: they share a head's features."""
PAIR = 2
"""Columns of an AttAcc bank that follow each other before the next group's."""
REGISTERS = 8
"""Of each of the two files of an HBM-PIM unit: vectors of inputs, and of sums."""


@dataclass(frozen=True)
class Heads:
    """What a cache holds: ``count`` heads of ``size`` features, room for ``tokens``."""

    count: int
    size: int
    tokens: int

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.count * self.size


def newton_weights(grid: BankGrid, rows: int, cols: int, first_row: int = 0) -> Layout:
    """Outputs take turns over banks, then channels."""
    chunks = -(-cols // grid.row_elements)
    tiles = -(-rows // (grid.banks * grid.channels))
    digits = (
        Digit("row", grid.banks, "bank"),
        Digit("row", grid.channels, "channel"),
        Digit("row", tiles, "element", grid.row_elements),
        *_along(grid, chunks, tiles),
    )
    return Layout("weights", grid, rows, cols, digits, origin=first_row * grid.row_elements)


def aim_weights(grid: BankGrid, rows: int, cols: int, first_row: int = 0) -> Layout:
    """Outputs in a block per channel, in which they take turns over banks."""
    chunks = -(-cols // grid.row_elements)
    tiles = -(-rows // (grid.banks * grid.channels))
    digits = (
        Digit("row", grid.banks, "bank"),
        Digit("row", tiles, "element", chunks * grid.row_elements),
        Digit("row", grid.channels, "channel"),
        *_along(grid, chunks),
    )
    return Layout("weights", grid, rows, cols, digits, origin=first_row * grid.row_elements)


def pim_gpt_weights(grid: BankGrid, rows: int, cols: int, first_row: int = 0) -> Layout:
    """As AiM's blocks, but all outputs of a chunk of the inputs before the next chunk."""
    chunks = -(-cols // grid.row_elements)
    tiles = -(-rows // (grid.banks * grid.channels))
    digits = (
        Digit("row", grid.banks, "bank"),
        Digit("row", tiles, "element", grid.row_elements),
        Digit("row", grid.channels, "channel"),
        *_along(grid, chunks, tiles),
    )
    return Layout("weights", grid, rows, cols, digits, origin=first_row * grid.row_elements)


def hbm_pim_weights(grid: BankGrid, rows: int, cols: int, first_row: int = 0) -> Layout:
    """Inputs over even and odd banks, outputs over registers, units, channels."""
    if grid.banks % 2:
        raise AccelsimError(f"weights: {grid.banks} banks; accepted: an even number, in pairs")
    lanes = grid.column_elements
    inputs = REGISTERS * lanes
    block = REGISTERS * inputs
    pairs, units = -(-cols // (2 * inputs)), grid.banks // 2
    digits = (
        Digit("row", REGISTERS, "element", inputs),
        Digit("row", units, "bank", 2),
        Digit("row", grid.channels, "channel"),
        Digit("row", -(-rows // (REGISTERS * units * grid.channels)), "element", pairs * block),
        Digit("col", inputs, "element"),
        Digit("col", 2, "bank"),
        Digit("col", pairs, "element", block),
    )
    return Layout("weights", grid, rows, cols, digits, origin=first_row * grid.row_elements)


def hbm_pim_blocks(grid: BankGrid, rows: int, cols: int, first_row: int = 0) -> Layout:
    """As HBM-PIM's weights, but outputs in a block per channel, tile after tile."""
    turns = hbm_pim_weights(grid, rows, cols, first_row)
    register, unit, channel, tile, *inputs = turns.digits
    return replace(turns, digits=(register, unit, tile, channel, *inputs))


def neupims_cache(grid: BankGrid, heads: Heads, place: int, origin: int) -> tuple[Layout, Layout]:
    """Keys and values of a request in channel ``place``."""
    return _token_cache(grid, heads, origin, place)


def aim_cache(grid: BankGrid, heads: Heads, place: int, origin: int) -> tuple[Layout, Layout]:
    """Keys and values of a request over all channels, with those of requests before it ahead."""
    probe = _token_cache(grid, heads, 0)
    rows = sum(layout.last_row - layout.first_row + 1 for layout in probe)
    start = origin + place * rows * grid.row_elements
    return _token_cache(grid, heads, start)


def attacc_cache(grid: BankGrid, heads: Heads, place: int, origin: int) -> tuple[Layout, Layout]:
    """Keys and values of head number ``place`` of a stack: its channel, and its turn there.

    Partitions of heads lie one behind the other, wherever a row begins.
    """
    if grid.banks % GROUP_BANKS:
        raise AccelsimError(f"K: {grid.banks} banks; accepted: groups of {GROUP_BANKS}")
    lanes, groups = grid.column_elements, grid.banks // GROUP_BANKS
    columns = -(-heads.size // (GROUP_BANKS * lanes))
    beside = max(1, PAIR // columns)  # tokens of keys that are a pair of columns
    turns, pairs = -(-heads.tokens // (groups * beside)), -(-heads.tokens // (groups * PAIR))
    slot, channel = divmod(place, grid.channels)
    partition = max(turns * beside, pairs * PAIR) * columns * lanes
    keys = (
        Digit("row", beside, "element", columns * lanes),
        Digit("row", groups, "bank", GROUP_BANKS),
        Digit("row", turns, "element", beside * columns * lanes),
        Digit("col", lanes, "element"),
        Digit("col", GROUP_BANKS, "bank"),
        Digit("col", columns, "element", lanes),
    )
    values = (
        Digit("row", lanes, "element"),
        Digit("row", GROUP_BANKS, "bank"),
        Digit("row", columns, "element", pairs * PAIR * lanes),
        Digit("col", PAIR, "element", lanes),
        Digit("col", groups, "bank", GROUP_BANKS),
        Digit("col", pairs, "element", PAIR * lanes),
    )
    start, half = origin + slot * partition, grid.bank_elements // 2
    tokens, size = heads.tokens, heads.size
    if start + partition > half:
        raise CapacityError(f"K: {start + partition:,} elements of a bank; half of it has {half:,}")
    return (
        Layout("K", grid, tokens, size, keys, channel, start),
        Layout("V^T", grid, size, tokens, values, channel, start + half),
    )


def _along(grid: BankGrid, chunks: int, apart: int = 1) -> tuple[Digit, Digit]:
    """A column index along rows; chunks of a row are so many rows apart."""
    size = grid.row_elements
    return Digit("col", size, "element"), Digit("col", chunks, "element", apart * size)


def _token_cache(
    grid: BankGrid, heads: Heads, origin: int, alone: int | None = None
) -> tuple[Layout, Layout]:
    """K with tokens over banks, and V^T with features over banks behind it: in channel ``alone``,
    or over all channels."""
    size, banks = grid.row_elements, grid.banks
    channel, channels = (0, grid.channels) if alone is None else (alone, 1)
    _check_heads(grid, heads, whole=alone is not None)
    tiles = -(-heads.tokens // (banks * channels))
    # Whole heads, where a head fits; what is left of a row stays empty.
    held = max(1, size // heads.size) * heads.size if heads.size < size else size
    keys = (
        Digit("row", banks, "bank"),
        Digit("row", channels, "channel"),
        Digit("row", tiles, "element", size),
        Digit("col", held, "element"),
        Digit("col", -(-heads.width // held), "element", tiles * size),
    )
    # In one channel a head has tiles of its own; over all of them heads share tiles.
    chunks, groups = -(-heads.tokens // size), 1 if alone is None else heads.count
    own = -(-heads.width // (banks * channels * groups))
    values = (
        Digit("row", banks, "bank"),
        Digit("row", channels, "channel"),
        Digit("row", own, "element", size),
        Digit("row", groups, "element", own * chunks * size),
        *_along(grid, chunks, own),
    )
    k = Layout("K", grid, heads.tokens, heads.width, keys, channel, origin)
    behind = (k.last_row + 1) * size
    return k, Layout("V^T", grid, heads.width, heads.tokens, values, channel, behind)


def check_head(size: int, row: int, banks: int, whole: bool) -> None:
    """Raise AccelsimError for heads of a size that do not fit rows of so many elements, keys side
    by side, or do not fill turns of the banks with values; ``whole``: no part of a row stays empty.
    """
    if size > row:
        raise AccelsimError(f"a head of {size} elements is longer than a row; accepted: {row}")
    if size % banks or (whole and row % size):
        fitting = [n for n in range(banks, row + 1, banks) if row % n == 0]
        accepted = ", ".join(map(str, fitting)) if whole else f"multiples of {banks} up to {row}"
        raise AccelsimError(
            f"heads of {size} elements do not fit rows of {row} elements in {banks} banks;"
            f" accepted: {accepted}"
        )


def _check_heads(grid: BankGrid, heads: Heads, whole: bool) -> None:
    """A head must not lie across the end of a row of keys, nor share a tile of banks of values;
    ``whole``: it must divide the row or be rows."""
    fits = not whole and heads.size < grid.row_elements
    if grid.row_elements % heads.size and heads.size % grid.row_elements and not fits:
        raise AccelsimError(
            f"K: heads of {heads.size} across the ends of rows of {grid.row_elements} elements;"
            " accepted: a divisor or a multiple of a row"
        )
    if heads.size % grid.banks:
        raise AccelsimError(
            f"V^T: heads of {heads.size} over {grid.banks} banks; accepted: a multiple of the banks"
        )


WEIGHTS: dict[str, Callable[[BankGrid, int, int, int], Layout]] = {
    "newton": newton_weights,
    "neupims": newton_weights,
    "aim": aim_weights,
    "pim-gpt": pim_gpt_weights,
    "hbm-pim": hbm_pim_weights,
}
CACHES: dict[str, Callable[[BankGrid, Heads, int, int], tuple[Layout, Layout]]] = {
    "newton": neupims_cache,
    "neupims": neupims_cache,
    "aim": aim_cache,
    "pim-gpt": aim_cache,
    "attacc": attacc_cache,
}


def weight_layout(family: str, grid: BankGrid, rows: int, cols: int, first_row: int = 0) -> Layout:
    """Where a family keeps the weights of y[rows] = W[rows, cols] x; a CapacityError tells how many
    outputs would fit."""
    if family not in WEIGHTS:
        raise AccelsimError(unknown("layout of weights", family, list(WEIGHTS)))
    build = WEIGHTS[family]
    try:
        return build(grid, rows, cols, first_row)
    except CapacityError as error:
        fit = _most(lambda n: build(grid, n, cols, first_row), rows)
        raise CapacityError(f"{error}; {fit:,} of {rows:,} outputs fit") from None


def cache_layouts(
    family: str, grid: BankGrid, heads: Heads, place: int = 0, first_row: int = 0
) -> tuple[Layout, Layout]:
    """Where a family keeps K and V^T of a request, or of a head, that takes ``place`` among others.

    Raises AccelsimError for heads that do not fit the rows, CapacityError, telling how many tokens
    would fit, for a cache beyond the banks.
    """
    if family not in CACHES:
        raise AccelsimError(unknown("layout of a cache", family, list(CACHES)))
    build, origin = CACHES[family], first_row * grid.row_elements
    try:
        return build(grid, heads, place, origin)
    except CapacityError as error:
        fit = _most(
            lambda n: build(grid, Heads(heads.count, heads.size, n), place, origin), heads.tokens
        )
        raise CapacityError(
            f"KV cache of {heads.tokens:,} tokens: {error}; {fit:,} tokens fit"
        ) from None


def _most(build: Callable[[int], object], beyond: int) -> int:
    """The largest number that can be built, below one that cannot."""
    low, high = 0, beyond
    while high - low > 1:
        middle = (low + high) // 2
        try:
            build(middle)
        except CapacityError:
            high = middle
        else:
            low = middle
    return low
