"""How long a product with one head takes in a channel of AttAcc, as tile programs have it.

Scores are a product of a vector with the rows of the keys; weighted values come 64 features at a
time, a column of each bank of a group, and later ones find the weights in the units. Vectors have
two buffers: those of the next product come in while this one is in work, and what is finished
leaves beside it. So a product keeps the channel for as long as one more of its kind makes a stream
longer, and its result is there when a stream of it alone has ended. Streams are made of the steps
of ``attacc_programs`` and sent to an idle channel, command by command; refresh is the share of time
that a long stream loses to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import ClassVar

from accelsim.errors import AccelsimError
from accelsim.hw.pim.catalog import family as find_family
from accelsim.hw.pim.channel.run_alone import run_alone
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.layouts.families import GROUP_BANKS, Heads, cache_layouts
from accelsim.hw.pim.layouts.layout import BankGrid, Layout
from accelsim.hw.pim.operators import Attention
from accelsim.hw.pim.products.product import Products, Spread, Sweep, Taken
from accelsim.hw.pim.programs.attacc import BARRIER_ROW, Head, Row, Stack

LONG_PRODUCTS, LONG_TOKENS = 16, 2048
"""A stream that meets several refreshes."""


class AttaccProducts(Products):
    """A head in a channel; vectors come from the buffer die, and results go there."""

    by_columns = True
    caches: ClassVar[Spread] = "heads"
    multiplies_weights = False

    def rows(
        self, family: Family, sweep: Sweep, first_row: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        """Vectors first, then step by step, without neighbours."""
        del vector
        columns = family.device.organization.columns
        yield from _rows([_Steps(family, sweep, 0, first_row * columns)])

    def beside_host(
        self, family: Family, sweep: Sweep, column: int, vector: tuple[int, int]
    ) -> Iterator[Row]:
        """Columns may begin anywhere in a row."""
        del vector
        yield from _rows([_Steps(family, sweep, 0, column)])

    def taken(self, family: Family, sweep: Sweep) -> Taken | None:
        """What a product with rows (``n`` tokens) or columns (``k`` tokens) takes."""
        if sweep.vectors * sweep.results > 1 or sweep.abreast:
            raise AccelsimError(f"{family.name} multiplies one vector at a time")
        alone, commands = run_alone(family, head_stream(family, [sweep]), False)
        first = replace(sweep, brings=True)
        before = run_alone(family, head_stream(family, [first]), False)[0]
        both = run_alone(family, head_stream(family, [first, sweep]), False)[0]
        with_refresh, without = _refresh_share(family.name)
        cycles, latency = (-(-c * with_refresh // without) for c in (both - before, alone))
        return Taken(cycles, max(cycles, latency), commands)

    def pin_bytes(self, family: Family, sweep: Sweep) -> int:
        """Nothing leaves the stack."""
        return 0

    def cache(
        self, family: Family, grid: BankGrid, heads: Heads, place: int
    ) -> tuple[Layout, Layout]:
        del family
        return cache_layouts("attacc", grid, heads, place)


@cache
def _refresh_share(name: str) -> tuple[int, int]:
    """(with, without): clocks of a long stream of products with refreshes and without."""
    family = find_family(name)
    if not family.rules.refresh:
        return 1, 1
    scores = Sweep(1, 1, LONG_TOKENS, GROUP_BANKS * family.units.macs)
    stream = head_stream(family, [scores] * LONG_PRODUCTS)
    return run_alone(family, stream, True)[0], run_alone(family, stream, False)[0]


def head_stream(family: Family, work: Sequence[Sweep]) -> PimStream:
    """Some products one after the other: the first is waited for, of the others the vectors come in
    beside the one before."""
    steps = [_Steps(family, one, number) for number, one in enumerate(work)]
    return PimStream.of(_rows(steps))


def _rows(work: list[_Steps]) -> Iterator[Row]:
    yield from work[0].vector
    if work[0].vector:
        yield BARRIER_ROW
    for one, following in zip(work, [*work[1:], None], strict=True):
        yield from one.rows(following.vector if following else [])


class _Steps:
    """The steps of a product in a channel; turns keep their heads in other rows."""

    def __init__(self, family: Family, product: Sweep, number: int, first: int | None = None):
        features = product.n if product.columns else product.k
        self.product = product
        tokens = product.k if product.columns else product.n
        work = Attention(tokens, 2 * family.channels, head_dim=features, bytes=2)
        self.stack = Stack(family, work)
        self.head = Head(self.stack, 0 if not product.brings else number % 2, 0, first)
        self.first = first

    @property
    def vector(self) -> list[Row]:
        """What brings its vector to the units."""
        if not self.product.brings:
            return []
        if self.product.columns:
            return [*self.head.softmax(), *self.head.weights()]
        return [*self.head.vector()]

    def rows(self, coming: list[Row]) -> Iterator[Row]:
        """All of its steps, and what comes in for the next product beside them."""
        values, stack, head = self.product.columns, self.stack, self.head
        count = stack.columns if values else stack.pieces

        def beside(j: int) -> Iterator[Row]:
            yield from coming[j * len(coming) // count : (j + 1) * len(coming) // count]

        if not values:
            yield from stack.steps(count, head.scores, head.scores_out, beside)
            return
        # Without a place of its own, a product that goes on lies behind the one before.
        later = 0 if self.product.brings or self.first is not None else count
        yield from stack.steps(count, lambda j: head.context(j + later), head.context_out, beside)
