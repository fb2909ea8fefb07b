"""How the commands of a family go over a matrix that lies in its banks.

A layout says where elements are. A walk says what the units do with the rows that commands open, in
hardware terms, and asks no layout: functional/bank_memory executes it on bytes, so that a product
is right only if both agree. Its order is how a sum is formed (numerics.orders).

Sources are those of layouts/families.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.pim.layouts.families import GROUP_BANKS, PAIR
from accelsim.hw.pim.layouts.layout import Layout


@dataclass(frozen=True)
class Sweep:
    """A row of every bank against a chunk of the inputs, by adder trees; what banks leave for an
    output in several rows is added in fp32 by who reads it, in ascending order.

    Banks of one channel take part (``alone``), or of all. Outputs take turns over banks, then
    channels, or lie in a block per channel (``blocks``). For ``together`` tiles of outputs (0: all)
    at a time come all chunks of the inputs, for each of them the tiles.
    """

    alone: bool = False
    blocks: bool = False
    together: int = 0
    by_lanes: ClassVar[bool] = False

    def order(self, layout: Layout, inputs: int) -> str:
        """Tag of a product over so many inputs."""
        tree, size = f"tree:{layout.grid.column_elements}", layout.grid.row_elements
        chunks = -(-inputs // size)
        return f"split:{chunks}:{size};{tree}" if chunks > 1 else tree


@dataclass(frozen=True)
class RegisterTiles:
    """128 inputs in even banks, 128 in odd ones; 8 outputs per pair of banks, whose lanes are added
    at the end."""

    by_lanes: ClassVar[bool] = True

    def order(self, layout: Layout, inputs: int) -> str:
        del inputs
        return f"lanes:{layout.grid.column_elements}"


@dataclass(frozen=True)
class GroupRows:
    """Tokens over groups of banks that share a head's features: a tree in every bank of a group,
    whose sums are added."""

    by_lanes: ClassVar[bool] = False

    def order(self, layout: Layout, inputs: int) -> str:
        del inputs
        return f"banks:{GROUP_BANKS}:{layout.grid.column_elements}"


@dataclass(frozen=True)
class GroupColumns:
    """Features along the lanes of a group's banks, pairs of tokens over groups, whose sums are
    added at the end."""

    by_lanes: ClassVar[bool] = True

    def order(self, layout: Layout, inputs: int) -> str:
        del inputs
        return f"lanes:{layout.grid.banks // GROUP_BANKS}:{PAIR}"


Walk = Sweep | RegisterTiles | GroupRows | GroupColumns
Choice = Callable[[Layout, int], Walk]


def _newton(layout: Layout, head_size: int) -> Walk:
    """A request lies in one channel, its values head by head, of ``head_size`` features each (0:
    one head)."""
    if layout.name == "weights":
        return Sweep()
    own = head_size // layout.grid.banks if layout.name == "V^T" else 0
    return Sweep(alone=True, together=own)


def _aim(layout: Layout, head_size: int) -> Walk:
    """The rows of an output one behind the other."""
    del head_size
    weights = layout.name == "weights"
    return Sweep(blocks=weights, together=int(weights))


def _pim_gpt(layout: Layout, head_size: int) -> Walk:
    """All outputs of a chunk of the inputs before the next one."""
    del head_size
    return Sweep(blocks=layout.name == "weights")


def _attacc(layout: Layout, head_size: int) -> Walk:
    del head_size
    return GroupColumns() if layout.name == "V^T" else GroupRows()


WALKS: dict[str, Choice] = {
    "newton": _newton,
    "neupims": _newton,
    "aim": _aim,
    "pim-gpt": _pim_gpt,
    "hbm-pim": lambda layout, head_size: RegisterTiles(),
    "attacc": _attacc,
}
"""By the names of layouts (layouts/families)."""


def walk_of(family: str, layout: Layout, head_size: int = 0) -> Walk:
    """How a family goes over weights, keys ("K") or values ("V^T") of a layout's shape."""
    if family not in WALKS:
        raise AccelsimError(unknown("layout of banks", family, list(WALKS)))
    return WALKS[family](layout, head_size)
