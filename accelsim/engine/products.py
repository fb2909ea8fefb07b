"""Products in the banks of main memory, as commands to its channels.

The addresses of an instruction's operands say where its vectors and its rows lie; the family's
products say which commands that takes (hw/pim/products).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from accelsim.engine.traffic import Products
from accelsim.errors import AccelsimError
from accelsim.hw.block import Ints, Work
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.memory import PimDram
from accelsim.hw.pim.products.product import Sweep
from accelsim.hw.pim.products.registry import products_of as family_products
from accelsim.hw.pim.unit import Pim
from accelsim.program.table import Program

VECTORS = 1 << 20
"""Rows from here on stand for those of the vectors, until it is known where these lie."""


def products_of(
    program: Program, memory: PimDram, parts: list[tuple[Pim, Ints, Work]]
) -> Products | None:
    """Commands of all products of a program; of every unit its instruction rows and their work.

    Raises:
        AccelsimError: two queues command the same channel, or a family whose matrices do not lie
            where their addresses say.
    """
    if not any(len(rows) for _, rows, _ in parts):
        return None
    rows = np.concatenate([rows for _, rows, _ in parts])
    base = program.operand_column("base")[program.sources[rows, :2]]
    products = family_products(memory.pim)
    channel, first, column = products.places(memory, base[:, 1], _storages(program, rows))
    _check_queues(program, rows, channel)
    vector = memory.address_map.locate(base[:, 0])
    bank = _bank(memory, vector.rank, vector.bank_group, vector.bank)
    sweeps = [(unit.family, one) for unit, _, work in parts for one in unit.sweeps(work)]
    tables = [
        _table(*one, *place)
        for one, *place in zip(sweeps, column.tolist(), bank.tolist(), strict=True)
    ]
    order = np.lexsort((rows, channel))
    length = np.array([len(one) for one in tables], np.int64)
    table = np.concatenate([tables[n] for n in order.tolist()])
    of = np.repeat(order, length[order])
    held = table[:, 1]
    of_vector = held >= VECTORS
    table[:, 1] = np.where(
        of_vector, held - VECTORS + vector.row[of], np.where(held < 0, held, held + first[of])
    )
    found = np.full((len(program), 2), -1, np.int64)
    found[rows[order], 0], found[rows[order], 1] = channel[order], np.cumsum(length[order])
    ends = np.bincount(channel[of], minlength=memory.channels).cumsum()
    return Products(found, table, rows[of], ends)


def _storages(program: Program, rows: Ints) -> Ints:
    """First address and bytes [n, 2] of the tensors whose matrices instructions multiply."""
    storage = program.operand_column("storage")[program.sources[rows, 1]]
    extents: Ints = np.array([(one.base, one.nbytes) for one in program.storages], np.int64)
    found: Ints = extents[storage]
    return found


def _bank(memory: PimDram, rank: Ints, group: Ints, bank: Ints) -> Ints:
    """Number in the channel."""
    parts = memory.part.organization
    return (rank * parts.bank_groups + group) * parts.banks + bank


@lru_cache(maxsize=1 << 16)
def _table(name: str, sweep: Sweep, column: int, bank: int) -> Ints:
    """Commands of a product whose matrix begins at a column of row 0, and whose vectors begin in a
    bank."""
    family = find_family(name)
    rows = family_products(family).beside_host(family, sweep, column, (VECTORS, bank))
    return PimStream.of(rows).table()


def _check_queues(program: Program, rows: Ints, channel: Ints) -> None:
    """The commands of a channel come in the order of one queue."""
    units = program.column("unit")[rows]
    queue = dict(zip(channel.tolist(), units.tolist(), strict=True))
    for c, unit in zip(channel.tolist(), units.tolist(), strict=True):
        if unit != queue[c]:
            names = sorted({program.units[unit].name, program.units[queue[c]].name})
            raise AccelsimError(
                f"{' and '.join(names)} both compute in channel {c}; accepted: one queue a channel"
            )
