"""Matrix products as tile programs: the loop nest that GEMM, convolution and attention share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from accelsim.errors import AccelsimError
from accelsim.hw.decoder import Decoder
from accelsim.hw.systolic import Systolic
from accelsim.mapping.decoding import coded_operand, decoders_of, expander_of, read_coded
from accelsim.mapping.epilogue import Finish, Finisher, finish_of, reserved_bytes
from accelsim.mapping.kept import kept_columns
from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.operands import Cols, Operand, Rows, Second, Stored
from accelsim.mapping.placement import ALIGNMENT
from accelsim.mapping.tile_sizes import even_share
from accelsim.mapping.tiling import Problem, Resources, Tiling, best_tiling, granules
from accelsim.numerics.formats import Format, number_format
from accelsim.program.storage import CodedView, View
from accelsim.workload.operators import Gemm

NOTHING = Finish()
BYTE = number_format("uint8")


@dataclass(frozen=True)
class Product:
    """One product c[m, n] = a[m, k] @ b[k, n], then ``finish``; ``b`` may be stored as [n, k].

    ``transpose_a``: ``a`` is stored as [k, m].
    """

    a: Operand
    b: View | Second
    c: View
    finish: Finish = NOTHING
    transpose_b: bool = False
    accumulator: str = ""
    transpose_a: bool = False

    @property
    def sums(self) -> Format:
        """The format of running sums."""
        return accumulator_format(self.b.fmt, self.accumulator)

    @property
    def m(self) -> int:
        return self.a.cols if self.transpose_a else self.a.rows

    @property
    def k(self) -> int:
        return self.a.rows if self.transpose_a else self.a.cols

    @property
    def n(self) -> int:
        return self.b.rows if self.transpose_b else self.b.cols

    def b_window(self, cols: slice, ks: slice) -> View:
        """A tile of b, for who loads it as one window; AccelsimError if it is none."""
        tile = self.b[(cols, ks) if self.transpose_b else (ks, cols)]
        if not isinstance(tile, View):
            raise AccelsimError("this mapper multiplies only what lies in memory as matrices")
        return tile

    def columns(self, cols: slice) -> Product:
        """The product for some columns of c only."""
        everything = slice(None)
        b = self.b[cols, everything] if self.transpose_b else self.b[everything, cols]
        finish = self.finish.window(everything, cols)
        return replace(self, b=b, c=self.c[everything, cols], finish=finish)

    def rows(self, rows: slice) -> Product:
        """The product for some rows of c only."""
        everything = slice(None)
        finish = self.finish.window(rows, everything)
        a = Cols(self.a, rows) if self.transpose_a else Rows(self.a, rows)
        return replace(self, a=a, c=self.c[rows, everything], finish=finish)


def gemm_products(op: Gemm, low: Lowering) -> list[Product]:
    """One product per batch element or group; operands are windows of the operator's tensors."""
    a, b, c = op.inputs[0], op.inputs[1], op.output
    finish = finish_of(op, low)
    b_rows, b_cols = (op.n, op.b_k) if op.transpose_b else (op.b_k, op.n)
    a_rows = op.k if op.transpose_a else op.m
    a_all = low.matrix(a, rows=op.batch * a_rows)
    b_all = low.matrix(b, rows=b_rows * op.groups * (1 if op.broadcast_b else op.batch))
    c_all = low.matrix(c, rows=op.batch * op.m)
    everything = slice(None)
    products = []
    for i in range(max(op.batch, op.groups)):
        rows = slice(i * op.m, (i + 1) * op.m)
        from_a = slice(i * a_rows, (i + 1) * a_rows)
        along_k, along_n = everything, everything
        if op.groups > 1:
            rows = from_a = everything
            along_k, along_n = (slice(i * size, (i + 1) * size) for size in (op.k, op.n))
        b_window = slice(0, b_rows) if op.broadcast_b else slice(i * b_rows, (i + 1) * b_rows)
        products.append(
            Product(
                kept_columns(op, Stored(a_all[from_a, along_k])),
                b_all[b_window, slice(0, b_cols)],
                c_all[rows, along_n],
                finish.window(rows, along_n),
                op.transpose_b,
                op.accumulator,
                op.transpose_a,
            )
        )
    return products


def all_stored(products: Sequence[Product]) -> bool:
    """Whether the operands lie in memory as they are multiplied, one window for each tile."""
    return all(
        isinstance(product.a, Stored) and isinstance(product.b, View) and not product.transpose_a
        for product in products
    )


def problem_of(low: Lowering, product: Product, jobs: int) -> Problem:
    """What the tile choice needs to know of ``jobs`` products like this one."""
    sums = product.sums
    return Problem(
        product.m, product.n, product.k, jobs,
        product.a.fmt.bits, product.b.fmt.bits, product.c.fmt.bits, sums.bits,
        a_stride=low.layouts.pitch(product.a.view) if isinstance(product.a, Stored) else 0,
        b_stride=low.layouts.pitch(product.b) if isinstance(product.b, View) else 0,
        c_stride=low.layouts.pitch(product.c),
        transpose_b=product.transpose_b, transpose_a=product.transpose_a, even_rows=low.even_rows,
        coded=coded_operand(low, product.b),
    )  # fmt: skip


def accumulator_format(operand: Format, asked: str = "") -> Format:
    """What a sum of products is kept in, unless ``asked`` for another: int32 for integers, fp32 for
    floating point, fp64 for itself."""
    usual = "fp64" if operand.name == "fp64" else "fp32"
    return number_format(asked or ("int32" if operand.is_integer else usual))


def lower_products(low: Lowering, products: Sequence[Product]) -> None:
    """Emit products of equal shape, shared out over the cores."""
    shared = low.multicasts and len(products) < len(low.cores) and all_stored(products)
    # A team hands out dense tiles of B, or tiles for its decoders.
    if shared and not read_coded(low, low.cores[0], products[0].b):
        from accelsim.mapping.teams import lower_in_team

        lower_in_team(low, products)
        return
    for core, share in over_cores(low, products):
        for same_shape in by_shape(share):
            CoreProducts(low, core, same_shape).emit()


def over_cores(low: Lowering, products: Sequence[Product]) -> Iterator[tuple[Core, list[Product]]]:
    """Whole products where there are enough, else shares of the longer output dimension."""
    cores = low.cores
    if len(products) >= len(cores):
        for i, core in enumerate(cores):
            yield core, list(products[i :: len(cores)])
        return
    gm, gn, _ = granules(cores[0].arrays[0][1])
    pieces: list[list[Product]] = [[] for _ in cores]
    for product in products:
        along_n = product.n // gn >= product.m // gm
        size, granule = (product.n, gn) if along_n else (product.m, gm)
        step = even_share(size, len(cores), granule)
        for piece, start in zip(pieces, range(0, size, step), strict=False):
            window = slice(start, min(start + step, size))
            piece.append(product.columns(window) if along_n else product.rows(window))
    yield from ((core, share) for core, share in zip(cores, pieces, strict=True) if share)


def by_shape(products: Sequence[Product]) -> Iterator[list[Product]]:
    """The products of each shape, in the order in which shapes first occur."""
    groups: dict[tuple[int, int, int], list[Product]] = {}
    for p in products:
        groups.setdefault((p.m, p.n, p.k), []).append(p)
    yield from groups.values()


def resources(
    low: Lowering,
    core: Core,
    array: Systolic,
    a_readers: int = 1,
    b_readers: int = 1,
    finish: Finish = NOTHING,
    decoders: Sequence[tuple[int, Decoder]] = (),
) -> Resources:
    """What the tile choice may count on in one core, of a team that shares what it reads, beside
    an epilogue."""
    names = list(dict.fromkeys(array.memories()))
    names += [unit.staging for _, unit in decoders[:1] if unit.staging not in names]
    hz = low.arch.clocks[array.clock]
    bandwidth = 0.0 if low.ideal else low.core_bytes_per_second / hz
    port = 0.0
    if low.network is not None and bandwidth:
        port = low.network.network.bandwidth * low.network.network.payload_share / hz
    return Resources(
        array=array,
        arrays=len(core.arrays),
        capacities=tuple(
            core.arenas[n].free
            - (reserved_bytes(finish, core.arenas[n].capacity) if n == array.outputs else 0)
            for n in names
        ),
        a_memory=names.index(array.inputs),
        b_memory=names.index(array.weights),
        c_memory=names.index(array.outputs),
        bytes_per_cycle=bandwidth,
        latency=low.read_seconds * hz,
        granule=1 if low.channels else low.memory.access_bytes,
        dram=low.channels,
        port_bytes_per_cycle=port,
        a_readers=a_readers,
        b_readers=b_readers,
        alone=core.sequencer is not None,
        expander=expander_of(low, decoders, names, hz),
    )


@dataclass(frozen=True)
class Sums:
    """The buffer of an output tile, and who computes which part of it: an array's queue, its rows
    or columns, their window. ``along`` "m" or "n", or one array computes all of it."""

    whole: View
    parts: tuple[tuple[int, slice, View], ...]
    along: str = ""


class CoreProducts:
    """The loop nest of one core over products of one shape."""

    def __init__(
        self,
        low: Lowering,
        core: Core,
        products: list[Product],
        tiling: Tiling | None = None,
        *,
        told: bool = True,
    ) -> None:
        if not core.arrays:
            raise AccelsimError(f"core {core.index} has no systolic array")
        self.low, self.core, self.products = low, core, products
        self.build, self.in_team = low.build, tiling is not None
        core.reset()
        first = products[0]
        array = core.arrays[0][1]
        self.acc_fmt = first.sums
        self.problem = problem_of(low, first, len(products))
        self.decoders, self.decoded = decoders_of(low, core, first.b), 0
        self.taken = read_coded(low, core, first.b)
        working = array.taking(self.taken) if self.taken else array
        limit = low.build.instruction_limit - len(low.build)
        self.tiling = tiling or best_tiling(
            self.problem,
            resources(low, core, working, finish=first.finish, decoders=self.decoders),
            limit,
        )
        low.build.reserve(
            self._instructions(first), f"[{first.m}, {first.k}] @ [{first.k}, {first.n}]"
        )
        if told:
            low.build.note(str(self.tiling))
        for product in products:
            if not isinstance(product.b, View):
                continue
            low.layouts.pack(product.b, self.tiling.tk if product.transpose_b else self.tiling.tn)
        self._cut_coded()
        self._reserve_buffers(array, first)

    def _instructions(self, first: Product) -> int:
        """Instructions of the nest; a tile of A may take more than one load."""
        t, p = self.tiling, self.problem
        tiles = -(-p.m // t.tm) * -(-p.k // t.tk) * p.jobs
        if not (t.resident and t.outer == "m"):
            tiles *= -(-p.n // t.tn)
        tile = (min(t.tm, p.m), min(t.tk, p.k))
        extra = tiles * (first.a.fetches(*(tile[::-1] if p.transpose_a else tile)) - 1)
        return int(t.instructions) + extra

    def _cut_coded(self) -> None:
        """Lay out the coded tiles of B as they are read, and remember how they were cut."""
        coded, t = self.low.coded, self.tiling
        sizes = [0]
        for product in self.products:
            b, matrix = product.b, coded.of(product.b)
            if matrix and isinstance(b, View):
                matrix.cuts[matrix.window(b)] = t.tn, t.tk
                for cols in steps(product.n, t.tn):
                    for ks in steps(product.k, t.tk):
                        window = (cols, ks) if product.transpose_b else (ks, cols)
                        sizes.append(coded.tile(b[window]).nbytes)
        self.longest = max(sizes)

    def _reserve_buffers(self, array: Systolic, first: Product) -> None:
        t, core = self.tiling, self.core
        b_shape = (t.tn, t.tk) if first.transpose_b else (t.tk, t.tn)
        # The few rows of a flat product are moved by one transfer if they take no longer than a
        # tile of B: main memory likes long runs best, and weights stream on meanwhile.
        p, tile = self.problem, t.tk * t.tn * self.problem.b_bits
        flat = not self.in_team and t.outer == "m" and p.jobs == 1 and p.m <= t.tm
        stored = t.resident and isinstance(first.a, Stored) and not first.transpose_a
        self.a_whole = flat and stored and p.m * p.k * p.a_bits <= tile
        a_cols, a_slots = (p.k, 1) if self.a_whole else (t.tk, t.a_slots)
        a_shape = (t.tk, t.tm) if first.transpose_a else (t.tm, a_cols)
        self.a_ring = core.ring(array.inputs, "a", *a_shape, first.a.fmt, a_slots)
        if self.taken:
            self.coded_ring = core.ring(array.weights, "b", 1, self.longest, BYTE, t.b_slots)
        else:
            self.b_ring = core.ring(array.weights, "b", *b_shape, first.b.fmt, t.b_slots)
        if self.decoders:
            staging = self.decoders[0][1].staging
            slots = min(t.a_slots, t.b_slots)  # those of a streamed operand
            self.coded_ring = core.ring(staging, "coded", 1, self.longest, BYTE, slots)
        sums, free = t.tm * p.n * p.acc_bits, core.arenas[array.outputs].free - ALIGNMENT
        self.c_whole = flat and first.finish.is_empty and sums <= min(tile, 8 * free)
        c_cols, c_slots = (p.n, 1) if self.c_whole else (t.tn, t.c_slots)
        self.c_ring = core.ring(array.outputs, "c", t.tm, c_cols, self.acc_fmt, c_slots)
        self.finisher = Finisher(self.low, core, array.outputs, t.tn, first.finish, t.c_slots)

    def emit(self) -> None:
        """Emit the whole nest."""
        t, p = self.tiling, self.problem
        outer, inner = steps(p.m, t.tm), steps(p.n, t.tn)
        if t.outer == "n":
            outer, inner = inner, outer
        for job, product in enumerate(self.products):
            for o in outer:
                # Filled tile by tile while the first inner tile runs, then kept.
                panel: dict[int, View] = {}
                for i in inner:
                    rows, cols = (o, i) if t.outer == "m" else (i, o)
                    self._output_tile(product, rows, cols, panel, job)

    def _load_a(self, product: Product, rows: slice, ks: slice) -> View:
        if self.a_whole:
            if ks.start == 0:
                self.a_rows = self.a_ring.next()[: rows.stop - rows.start, :]
                everything, queue = slice(0, product.k), self.core.load_queues[0]
                product.a.fetch(self.build, queue, self.a_rows, rows, everything)
            return self.a_rows[:, ks]
        window = (ks, rows) if product.transpose_a else (rows, ks)
        height, width = (w.stop - w.start for w in window)
        tile = self.a_ring.next()[:height, :width]
        product.a.fetch(self.build, self.core.load_queues[0], tile, *window)
        return tile

    def _load_b(self, product: Product, cols: slice, ks: slice) -> View:
        window = (cols, ks) if product.transpose_b else (ks, cols)
        rows, width = (w.stop - w.start for w in window)
        source, queue = product.b[window], self.core.load_queues[-1]
        if (self.decoders or self.taken) and isinstance(source, View):
            waiting = self.staged(self.low.coded.tile(source))
            self.build.load(queue, waiting, self.low.coded.tile(source))
            return self.decode(waiting) if self.decoders else waiting
        tile = self.b_ring.next()[:rows, :width]
        if isinstance(source, View):
            self.build.load(queue, tile, source)
        else:
            source.fetch(self.build, queue, tile)
        return tile

    def staged(self, coded: CodedView) -> CodedView:
        """The next buffer for the bytes of a coded tile."""
        buffer = self.coded_ring.next().storage
        return self.build.coded(buffer, 0, coded.nbytes, coded.form)

    def decode(self, waiting: CodedView) -> View:
        """The next buffer of B with what a coded tile stands for; decoders take turns."""
        tile = self.b_ring.next()[: waiting.rows, : waiting.cols]
        slot = self.decoders[self.decoded % len(self.decoders)][0]
        self.decoded += 1
        self.build.decode(slot, tile, waiting)
        return tile

    def _output_tile(
        self, product: Product, rows: slice, cols: slice, panel: dict[int, View], job: int
    ) -> None:
        sums = self.accumulators(rows, cols, job)
        for i, ks in enumerate(steps(self.problem.k, self.tiling.tk)):
            kept = panel.get(i)
            outer_m = self.tiling.outer == "m"
            a = kept if kept and outer_m else self._load_a(product, rows, ks)
            b = kept if kept and not outer_m else self._load_b(product, cols, ks)
            if self.tiling.resident:
                panel[i] = a if outer_m else b
            self.multiply(sums, a, b, product.transpose_b, i > 0, product.transpose_a)
        self.store(product, rows, cols, sums)

    def accumulators(self, rows: slice, cols: slice, job: int) -> Sums:
        """The buffer of a new output tile, shared out over the arrays of the core."""
        arrays, split = self.core.arrays, self.tiling.split
        acc = self._buffer(rows, cols)
        if split == "job" or len(arrays) == 1:
            return Sums(acc, ((arrays[job % len(arrays)][0], slice(None), acc),))
        gm, gn, _ = granules(arrays[0][1])
        along_n = split == "n"
        size, granule = (acc.cols, gn) if along_n else (acc.rows, gm)
        shares = steps(size, even_share(size, len(arrays), granule))
        return Sums(
            acc,
            tuple(
                (slot, part, acc[:, part] if along_n else acc[part, :])
                for (slot, _), part in zip(arrays, shares, strict=False)
            ),
            split,
        )

    def _buffer(self, rows: slice, cols: slice) -> View:
        if self.c_whole:
            if cols.start == 0:
                self.c_rows = self.c_ring.next()[: rows.stop - rows.start, :]
            return self.c_rows[:, cols]
        return self.c_ring.next()[: rows.stop - rows.start, : cols.stop - cols.start]

    def store(self, product: Product, rows: slice, cols: slice, sums: Sums) -> None:
        """A finished output tile, with its epilogue, to main memory."""
        acc = sums.whole
        self.finisher.finish(acc, product.finish.window(rows, cols))
        if self.c_whole:
            if cols.stop < product.n:
                return
            acc, cols = self.c_rows, slice(0, product.n)
        self.build.store(self.core.store_queue, product.c[rows, cols], acc)

    def multiply(
        self, sums: Sums, a: View, b: View, transpose_b: bool, accumulate: bool,
        transpose_a: bool = False,
    ) -> None:  # fmt: skip
        """One K step of an output tile, by all arrays that have a part of it."""
        mine_a, mine_b = a, b
        for slot, part, acc in sums.parts:
            if sums.along == "n":
                mine_b = b[part, :] if transpose_b else b[:, part]
            elif sums.along:
                mine_a = a[:, part] if transpose_a else a[part, :]
            self.build.matmul(
                slot, acc, mine_a, mine_b, accumulate=accumulate,
                transpose_a=transpose_a, transpose_b=transpose_b, part=bool(sums.along),
            )  # fmt: skip


def steps(size: int, step: int) -> list[slice]:
    """Windows of ``step`` that cover 0 .. size, the last one cut at the edge."""
    return [slice(s, min(s + step, size)) for s in range(0, size, step)]
