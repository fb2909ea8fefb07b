"""A matrix product on a team of cores: a grid of shares, every operand tile read once for many.

    c[m, n] over R x C cores: core (r, c) computes row share r of column share c.
    A tiles of row share r go to the C cores of that row, B tiles of column share c to the R cores
    of that column, each by one multicast over the network.

The cores run the same loop nest in step, as far as their buffers let them. Of all grids that have
as many cores the closed form of ``tiling`` chooses the cheapest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.errors import AccelsimError, CapacityError
from accelsim.mapping.decoding import decoders_of
from accelsim.mapping.lowering import Lowering, Ring
from accelsim.mapping.operands import Stored
from accelsim.mapping.products import CoreProducts, Product, problem_of, resources, steps
from accelsim.mapping.tile_sizes import even_share
from accelsim.mapping.tiling import Tiling, best_tiling, granules
from accelsim.program.storage import View

Kept = dict[tuple[int, int], list[View]]  # tiles that stay on chip, by share and first k
Team = Sequence[CoreProducts]


@dataclass(frozen=True)
class Grid:
    """How the shares of a product lie on the cores: windows of its rows and of its columns."""

    rows: tuple[slice, ...]
    cols: tuple[slice, ...]
    tiling: Tiling

    def __str__(self) -> str:
        return f"{len(self.rows)} x {len(self.cols)} cores, multicast"


def lower_in_team(low: Lowering, products: Sequence[Product]) -> None:
    """Emit products of equal shape, each of them on all cores."""
    grid = choose_grid(low, products)
    low.build.note(str(grid))
    TeamProducts(low, list(products), grid).emit()


def choose_grid(low: Lowering, products: Sequence[Product]) -> Grid:
    """The cheapest arrangement of the cores, by the closed form for the largest share.

    Raises:
        CapacityError: no tile of any share fits into the scratchpads.
    """
    return min(grids(low, products), key=lambda grid: grid.tiling.cycles)


def grids(low: Lowering, products: Sequence[Product]) -> list[Grid]:
    """Every arrangement of the cores whose tiles fit, with the best tiles of each."""
    first, core, cores = products[0], low.cores[0], len(low.cores)
    core.reset()
    array = core.arrays[0][1]
    gm, gn, _ = granules(array)
    limit = (low.build.instruction_limit - len(low.build)) // cores
    found, fault = list[Grid](), CapacityError("no share of the product fits")
    for count in (n for n in range(1, cores + 1) if cores % n == 0):
        rows = steps(first.m, even_share(first.m, count, gm))
        cols = steps(first.n, even_share(first.n, cores // count, gn))
        share = first.rows(rows[0]).columns(cols[0])
        decoders = decoders_of(low, core, share.b)
        team = resources(low, core, array, len(cols), len(rows), share.finish, decoders)
        try:
            tiling = best_tiling(problem_of(low, share, len(products)), team, limit)
        except CapacityError as problem:
            fault = problem
        else:
            found.append(Grid(tuple(rows), tuple(cols), tiling))
    if not found:
        raise fault
    return found


class TeamProducts:
    """The loop nest of a grid of cores over products of one shape, in step."""

    def __init__(self, low: Lowering, products: list[Product], grid: Grid) -> None:
        self.low, self.products, self.grid = low, products, grid
        self.tiling = grid.tiling
        cores = iter(low.cores)
        self.members = [
            [
                CoreProducts(
                    low,
                    next(cores),
                    [p.rows(rows).columns(cols) for p in products],
                    grid.tiling,
                )
                for cols in grid.cols
            ]
            for rows in grid.rows
        ]
        # Tiles of every row share and column share, in coordinates of the whole product.
        self.row_tiles = [_tiles(window, self.tiling.tm) for window in grid.rows]
        self.col_tiles = [_tiles(window, self.tiling.tn) for window in grid.cols]

    def emit(self) -> None:
        """Emit the whole nest."""
        m_tiles, n_tiles = len(self.row_tiles[0]), len(self.col_tiles[0])
        outer_m = self.tiling.outer == "m"
        for job, product in enumerate(self.products):
            for o in range(m_tiles if outer_m else n_tiles):
                kept: Kept = {}
                for i in range(n_tiles if outer_m else m_tiles):
                    self._step(product, job, *((o, i) if outer_m else (i, o)), kept)

    def _step(self, product: Product, job: int, m_tile: int, n_tile: int, kept: Kept) -> None:
        """One output tile on every core that has one; smaller shares have fewer of them."""
        rows = [tiles[m_tile] for tiles in self.row_tiles if m_tile < len(tiles)]
        cols = [tiles[n_tile] for tiles in self.col_tiles if n_tile < len(tiles)]
        team = [[line[c] for c in range(len(cols))] for line in self.members[: len(rows)]]
        sums = [
            [one.accumulators(rows[r], cols[c], job) for c, one in enumerate(line)]
            for r, line in enumerate(team)
        ]
        for i, ks in enumerate(steps(product.k, self.tiling.tk)):
            a = [self._load_a(product, line, r, rows[r], ks, kept) for r, line in enumerate(team)]
            columns = enumerate(zip(*team, strict=True))
            b = [self._load_b(product, line, c, cols[c], ks, kept) for c, line in columns]
            for r, line in enumerate(team):
                for c, one in enumerate(line):
                    one.multiply(sums[r][c], a[r][c], b[c][r], product.transpose_b, i > 0)
        for r, line in enumerate(team):
            for c, one in enumerate(line):
                one.store(product, rows[r], cols[c], sums[r][c])

    # Different cores issue the tiles of different shares, so that no queue carries them all.

    def _load_a(
        self, product: Product, team: Team, share: int, rows: slice, ks: slice, kept: Kept
    ) -> list[View]:
        """A tile of A in the scratchpads of the cores of one row."""
        queue = team[share % len(team)].core.load_queues[0]
        rings = [one.a_ring for one in team]
        stays = self.tiling.resident and self.tiling.outer == "m"
        source = matrix_of(product)[rows, ks]
        return self._deliver(queue, rings, source, (share, ks.start), kept if stays else {})

    def _load_b(
        self, product: Product, team: Team, share: int, cols: slice, ks: slice, kept: Kept
    ) -> list[View]:
        """A tile of B in the scratchpads of the cores of one column."""
        queue = team[(share + 1) % len(team)].core.load_queues[-1]
        stays = self.tiling.resident and self.tiling.outer == "n"
        source = product.b_window(cols, ks)
        key, known = (share, ks.start), kept if stays else {}
        if team[0].decoders:
            return self._expand(queue, team, source, key, known)
        return self._deliver(queue, [one.b_ring for one in team], source, key, known)

    def _expand(
        self, queue: int, team: Team, source: View, key: tuple[int, int], kept: Kept
    ) -> list[View]:
        """A coded tile in the scratchpads of a team, and what each core decodes it to."""
        if key not in kept:
            coded = self.low.coded.tile(source)
            waiting = [one.staged(coded) for one in team]
            self.low.build.multicast(queue, waiting, coded)
            kept[key] = [one.decode(w) for one, w in zip(team, waiting, strict=True)]
        return kept[key]

    def _deliver(
        self, queue: int, rings: list[Ring], source: View, key: tuple[int, int], kept: Kept
    ) -> list[View]:
        """One view of ``source`` in each ring, loaded now unless it was kept."""
        if key not in kept:
            tiles = [ring.next()[: source.rows, : source.cols] for ring in rings]
            self.low.build.multicast(queue, tiles, source)
            kept[key] = tiles
        return kept[key]


def matrix_of(product: Product) -> View:
    """The first operand as it lies in memory."""
    if not isinstance(product.a, Stored):
        raise AccelsimError("a team multiplies operands that lie in memory as they are")
    return product.a.view


def _tiles(window: slice, size: int) -> list[slice]:
    """A share cut into tiles, in coordinates of the whole."""
    inside = steps(window.stop - window.start, size)
    return [slice(window.start + one.start, window.start + one.stop) for one in inside]
