"""Small but realistic correct programs, as a mapper would build them.

Every maker takes a random generator and returns a Program of some dozens of instructions with
remainder tiles, rings of buffers and a few units. Sizes are small enough for a byte-by-byte oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from accelsim.api import as_arch, as_graph
from accelsim.hw.stream import STEPS
from accelsim.numerics.formats import FORMATS, Format, row_bytes
from accelsim.program.builder import Builder
from accelsim.program.opcodes import Function
from accelsim.program.storage import Storage, View
from accelsim.program.table import AddressSpace, OperatorInfo, Program, StorageInfo, UnitSlot
from accelsim.simulation import compile_program, plan_memory

FP32, BF16, INT8, INT32 = (FORMATS[name] for name in ("fp32", "bf16", "int8", "int32"))
MAIN, SCRATCHPAD = 0, 1


@dataclass
class Bench:
    """A machine with DMA queues, arrays and a vector unit, and bump allocators for its memories."""

    loads: int = 2
    arrays: int = 2
    main_bytes: int = 8192
    scratchpad_bytes: int = 4096
    build: Builder = field(init=False)
    operators: int = 0
    top: dict[int, int] = field(default_factory=lambda: {MAIN: 0, SCRATCHPAD: 0})

    def __post_init__(self) -> None:
        units = [UnitSlot(f"dma{i}", "dma", 0) for i in range(self.loads + 1)]
        units += [UnitSlot(f"mxu{i}", "mxu", 0) for i in range(self.arrays)]
        units.append(UnitSlot("vpu", "vpu", 0))
        spaces = [
            AddressSpace("hbm", "hbm", self.main_bytes, -1),
            AddressSpace("vmem", "vmem", self.scratchpad_bytes, 0),
        ]
        self.build = Builder(units, spaces)
        self._turn = 0

    @property
    def load_queue(self) -> int:
        """Load queues in turn."""
        self._turn += 1
        return self._turn % self.loads

    @property
    def store_queue(self) -> int:
        return self.loads

    def array(self, i: int) -> int:
        return self.loads + 1 + i % self.arrays

    @property
    def vector(self) -> int:
        return self.loads + 1 + self.arrays

    def operator(self, kind: str) -> int:
        name = f"{kind}{self.operators}"
        self.operators += 1
        return self.build.begin_operator(OperatorInfo(name, kind, "test", 0))

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        fmt: Format,
        role: str,
        producer: int = -1,
        *,
        over: Storage | None = None,
        written: tuple[tuple[int, int], ...] = (),
    ) -> View:
        """A tensor in main memory, ``over`` the place of one whose lifetime has ended."""
        rows, cols = 1, shape[-1]
        for size in shape[:-1]:
            rows *= size
        nbytes = rows * row_bytes(cols, fmt)
        base = self.top[MAIN] if over is None else over.base
        info = StorageInfo(name, MAIN, base, nbytes, role, shape, fmt.name, producer, written)
        self.top[MAIN] = max(self.top[MAIN], base + nbytes + 16)
        after = () if over is None else (over,)
        return self.build.storage(info, after).view(rows, cols, fmt)

    def ring(
        self, name: str, rows: int, cols: int, fmt: Format, slots: int, after: list[Storage]
    ) -> list[View]:
        """``slots`` buffers; they wait for those of ``after`` that lie at the same place."""
        views = []
        for i in range(slots):
            base = self.top[SCRATCHPAD]
            nbytes = rows * row_bytes(cols, fmt)
            self.top[SCRATCHPAD] = base + nbytes
            over = [s for s in after if s.base < base + nbytes and base < s.base + s.nbytes]
            info = StorageInfo(f"{name}[{i}]", SCRATCHPAD, base, nbytes, "buffer")
            views.append(self.build.storage(info, over).view(rows, cols, fmt))
        return views


def _turn(ring: list[View], step: int) -> View:
    view = ring[step % len(ring)]
    view.storage.renew()
    return view


def _tiles(size: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, size)) for start in range(0, size, tile)]


def _emit_gemm(
    bench: Bench, rng: Random, a: View, b: View, c: View, earlier: list[Storage]
) -> list[Storage]:
    """c = a @ b with rings of tiles; a vector unit rounds if c is narrower than the sum."""
    tm, tn, tk = rng.choice((2, 3, 4)), rng.choice((2, 4, 5)), rng.choice((2, 3, 4))
    total = INT32 if a.fmt.is_integer else FP32
    bench.top[SCRATCHPAD] = 0
    xs = bench.ring("x", tm, tk, a.fmt, rng.choice((1, 2, 3)), earlier)
    ws = bench.ring("w", tk, tn, b.fmt, rng.choice((1, 2)), earlier)
    sums = bench.ring("acc", tm, tn, total, rng.choice((1, 2, 3)), earlier)
    through_vector = rng.random() < 0.5
    outs = bench.ring("out", tm, tn, c.fmt, rng.choice((1, 2)), earlier) if through_vector else []
    build, step, tile = bench.build, 0, 0
    for m in _tiles(a.rows, tm):
        for n in _tiles(b.cols, tn):
            rows, cols = m.stop - m.start, n.stop - n.start
            acc = _turn(sums, tile)[0:rows, 0:cols]
            for k in _tiles(a.cols, tk):
                depth = k.stop - k.start
                x, w = _turn(xs, step)[0:rows, 0:depth], _turn(ws, step)[0:depth, 0:cols]
                build.load(bench.load_queue, x, a[m, k])
                build.load(bench.load_queue, w, b[k, n])
                build.matmul(bench.array(tile), acc, x, w, accumulate=k.start > 0)
                step += 1
            if through_vector:
                out = _turn(outs, tile)[0:rows, 0:cols]
                build.vector(bench.vector, Function.COPY, out, acc)
                acc = out
            build.store(bench.store_queue, c[m, n], acc)
            tile += 1
    return [view.storage for view in (*xs, *ws, *sums, *outs)]


def _emit_softmax(
    bench: Bench, rng: Random, x: View, out: View, earlier: list[Storage]
) -> list[Storage]:
    """Row softmax: max, subtract, exponential, sum, reciprocal, scale; partly in place."""
    tm, slots = rng.choice((1, 2, 3)), rng.choice((1, 2))
    bench.top[SCRATCHPAD] = 0
    xs = bench.ring("sx", tm, x.cols, x.fmt, slots, earlier)
    wide = bench.ring("se", tm, x.cols, FP32, slots, earlier)
    column = bench.ring("sc", tm, 1, FP32, slots, earlier)
    build, unit = bench.build, bench.vector
    for step, m in enumerate(_tiles(x.rows, tm)):
        rows = slice(0, m.stop - m.start)
        every = slice(None)
        v, e, c = (_turn(r, step)[rows, every] for r in (xs, wide, column))
        build.load(bench.load_queue, v, x[m, every])
        build.vector(unit, Function.ROW_MAX, c, v)
        build.vector(unit, Function.SUB, e, v, c)
        build.vector(unit, Function.EXP, e, e)
        build.vector(unit, Function.ROW_SUM, c, e)
        build.vector(unit, Function.RECIPROCAL, c, c)
        build.vector(unit, Function.MUL, e, e, c)
        build.store(bench.store_queue, out[m, every], e)
    return [view.storage for view in (*xs, *wide, *column)]


def _bench(rng: Random) -> Bench:
    return Bench(loads=rng.choice((1, 2, 3)), arrays=rng.choice((1, 2, 3)))


def _sizes(rng: Random) -> tuple[int, int, int]:
    return rng.choice((3, 4, 6)), rng.choice((4, 5, 8)), rng.choice((4, 5, 6))


def tiled_gemm(rng: Random) -> Program:
    """One product on one or several arrays, in floating point or integers."""
    bench = _bench(rng)
    m, n, k = _sizes(rng)
    fmt, result = rng.choice(((BF16, BF16), (INT8, INT32), (BF16, FP32)))
    op = bench.operator("gemm")
    a = bench.tensor("a", (m, k), fmt, "input")
    b = bench.tensor("b", (k, n), fmt, "weight")
    c = bench.tensor("c", (m, n), result, "output", op)
    _emit_gemm(bench, rng, a, b, c, [])
    return bench.build.finish()


def vector_chain(rng: Random) -> Program:
    """A softmax: dependent vector instructions on one unit, partly in place."""
    bench = _bench(rng)
    op = bench.operator("softmax")
    shape = rng.choice((3, 5, 6)), rng.choice((4, 6))
    x = bench.tensor("x", shape, BF16, "input")
    y = bench.tensor("y", shape, BF16, "output", op)
    _emit_softmax(bench, rng, x, y, [])
    return bench.build.finish()


def operator_chain(rng: Random) -> Program:
    """Operators that reuse the scratchpad, and a tensor in the place of one that has died."""
    bench = _bench(rng)
    m, n, k = 3, rng.choice((3, 4)), rng.choice((3, 4))
    gemm = bench.operator("gemm")
    a = bench.tensor("a", (m, k), BF16, "input")
    b = bench.tensor("b", (k, n), BF16, "weight")
    c = bench.tensor("c", (m, n), BF16, "activation", gemm)
    used = _emit_gemm(bench, rng, a, b, c, [])
    softmax = bench.operator("softmax")
    d = bench.tensor("d", (m, n), BF16, "activation", softmax)
    used += _emit_softmax(bench, rng, c, d, used)
    last = bench.operator("gemm")
    e = bench.tensor("e", (n, 4), BF16, "weight")
    f = bench.tensor("f", (m, 4), BF16, "activation", last, over=c.storage)
    used += _emit_gemm(bench, rng, d, e, f, used)
    final = bench.operator("softmax")
    g = bench.tensor("g", (m, 4), BF16, "output", final)
    _emit_softmax(bench, rng, f, g, used)
    return bench.build.finish()


def cache_append(rng: Random) -> Program:
    """New rows into a cache, head by head, then a product with the whole cache, transposed."""
    bench = _bench(rng)
    heads, capacity, width, new = rng.choice((1, 2)), rng.choice((4, 6)), 3, rng.choice((1, 2))
    position = rng.randrange(capacity - new + 1)
    append = bench.operator("kv_append")
    starts = [h * capacity + position for h in range(heads)]
    fresh = bench.tensor("new", (new, heads * width), BF16, "input")
    cache = bench.tensor(
        "cache", (heads, capacity, width), BF16, "cache", append,
        written=tuple((s, s + new - 1) for s in starts),
    )  # fmt: skip
    build = bench.build
    ring = bench.ring("kv", new, width, BF16, rng.choice((1, 2)), [])
    for h, start in enumerate(starts):
        buffer = _turn(ring, h)
        build.load(bench.load_queue, buffer, fresh[:, h * width : (h + 1) * width])
        build.store(bench.store_queue, cache[start : start + new, :], buffer)
    scores = bench.operator("scores")
    q = bench.tensor("q", (new, heads * width), BF16, "input")
    s = bench.tensor("s", (new, heads * capacity), FP32, "output", scores)
    earlier = [view.storage for view in ring]
    bench.top[SCRATCHPAD] = 0
    slots = rng.choice((1, 2))
    qs = bench.ring("q", new, width, BF16, slots, earlier)
    ks = bench.ring("k", capacity, width, BF16, slots, earlier)
    out = bench.ring("acc", new, capacity, FP32, slots, earlier)
    for h in range(heads):
        x, key, acc = (_turn(r, h) for r in (qs, ks, out))
        build.load(bench.load_queue, x, q[:, h * width : (h + 1) * width])
        build.load(bench.load_queue, key, cache[h * capacity : (h + 1) * capacity, :])
        build.matmul(bench.array(h), acc, x, key, accumulate=False, transpose_b=True)
        build.store(bench.store_queue, s[:, h * capacity : (h + 1) * capacity], acc)
    return build.finish()


def fan_in(rng: Random) -> Program:
    """Buffers filled in parts by many queues, so that consumers need joins."""
    bench = Bench(loads=rng.choice((4, 5)), arrays=rng.choice((1, 2)))
    op = bench.operator("gemm")
    k, n = bench.loads, 4
    a = bench.tensor("a", (6, k), INT8, "input")
    b = bench.tensor("b", (k, n), INT8, "weight")
    c = bench.tensor("c", (6, n), INT32, "output", op)
    build, slots = bench.build, rng.choice((1, 2))
    xs = bench.ring("x", 2, k, INT8, slots, [])
    ws = bench.ring("w", k, n, INT8, slots, [])
    sums = bench.ring("acc", 2, n, INT32, slots, [])
    for step, m in enumerate(_tiles(6, 2)):
        x, w, acc = (_turn(r, step) for r in (xs, ws, sums))
        for q in range(k):
            build.load(q, x[:, q : q + 1], a[m, q : q + 1], part=True)
            build.load((q + step) % k, w[q : q + 1, :], b[q : q + 1, :], part=True)
        build.matmul(bench.array(step), acc, x, w, accumulate=False)
        build.store(bench.store_queue, c[m, :], acc)
    return build.finish()


def shared_operand(rng: Random) -> Program:
    """One operand that many arrays read at the same time, each for its own columns."""
    bench = Bench(loads=rng.choice((1, 2)), arrays=rng.choice((2, 3, 10)))
    op = bench.operator("gemm")
    steps, n = rng.choice((2, 3)), bench.arrays
    a = bench.tensor("a", (2 * steps, 3), INT8, "input")
    b = bench.tensor("b", (3, n), INT8, "weight")
    c = bench.tensor("c", (2 * steps, n), INT32, "output", op)
    build = bench.build
    xs = bench.ring("x", 2, 3, INT8, rng.choice((1, 2)), [])
    sums = bench.ring("acc", 2, n, INT32, rng.choice((1, 2)), [])
    (w,) = bench.ring("w", 3, n, INT8, 1, [])
    build.load(bench.load_queue, w, b)
    for step, m in enumerate(_tiles(2 * steps, 2)):
        x, acc = _turn(xs, step), _turn(sums, step)
        build.load(bench.load_queue, x, a[m, :])
        for i in range(n):
            column = slice(i, i + 1)
            build.matmul(
                bench.array(i), acc[:, column], x, w[:, column], accumulate=False, part=True
            )
        build.store(bench.store_queue, c[m, :], acc)
    return build.finish()


def shared_bytes(rng: Random) -> Program:
    """Two buffers that overlap in a few bytes and live on in turns, each in its own part."""
    bench = _bench(rng)
    op = bench.operator("copy")
    x = bench.tensor("x", (6, 8), INT8, "input")
    y = bench.tensor("y", (6, 8), INT8, "output", op)
    build = bench.build
    low = build.storage(StorageInfo("low", SCRATCHPAD, 0, 32, "buffer"))
    kept, lost = low.view(2, 8, INT8), low.view(2, 8, INT8, offset=16)
    build.load(bench.load_queue, kept, x[0:2, :], part=True)
    build.load(bench.load_queue, lost, x[2:4, :], part=True)
    build.store(bench.store_queue, y[2:4, :], lost)
    high = build.storage(StorageInfo("high", SCRATCHPAD, 24, 16, "buffer"), [low])
    top = high.view(2, 8, INT8)
    build.load(bench.load_queue, top, x[4:6, :])
    build.vector(bench.vector, Function.RELU, kept, kept)
    for _ in range(rng.choice((0, 1))):
        build.vector(bench.vector, Function.RELU, top, top)
    build.store(bench.store_queue, y[0:2, :], kept)
    build.store(bench.store_queue, y[4:6, :], top)
    return build.finish()


def multicast_tiles(rng: Random) -> Program:
    """Cores that share one operand, sent to all of their scratchpads at once, and have one each."""
    cores = rng.choice((2, 3, 4))
    units = [UnitSlot(f"core{c}.{name}", name, c) for c in range(cores) for name in ("dma", "mxu")]
    spaces = [AddressSpace("hbm", "hbm", 8192, -1)]
    spaces += [AddressSpace(f"core{c}.vmem", "vmem", 1024, c) for c in range(cores)]
    build = Builder(units, spaces)
    op = build.begin_operator(OperatorInfo("gemm", "gemm", "test", 0))
    steps, m = rng.choice((1, 2, 3)), rng.choice((2, 3))

    def tensor(name: str, base: int, shape: tuple[int, int], fmt: Format, role: str) -> View:
        nbytes, producer = shape[0] * row_bytes(shape[1], fmt), op if role == "output" else -1
        info = StorageInfo(name, 0, base, nbytes, role, shape, fmt.name, producer)
        return build.storage(info).view(*shape, fmt)

    def ring(name: str, core: int, base: int, shape: tuple[int, int], fmt: Format) -> list[View]:
        nbytes = shape[0] * row_bytes(shape[1], fmt)
        infos = [
            StorageInfo(f"{name}{i}", core + 1, base + i * nbytes, nbytes, "buffer")
            for i in range(rng.choice((1, 2)))
        ]
        return [build.storage(info).view(*shape, fmt) for info in infos]

    a = tensor("a", 0, (m * cores, 4 * steps), INT8, "input")
    b = tensor("b", 1024, (4 * steps, 4), INT8, "weight")
    c = tensor("c", 2048, (m * cores, 4), INT32, "output")
    xs = [ring("x", core, 0, (m, 4), INT8) for core in range(cores)]
    ws = [ring("w", core, 256, (4, 4), INT8) for core in range(cores)]
    sums = [ring("acc", core, 512, (m, 4), INT32)[0] for core in range(cores)]
    for step, k in enumerate(_tiles(4 * steps, 4)):
        wide = [_turn(ring, step) for ring in ws]
        build.multicast(2 * rng.randrange(cores), wide, b[k, :])
        for core in range(cores):
            x = _turn(xs[core], step)
            build.load(2 * core, x, a[core * m : (core + 1) * m, k])
            build.matmul(2 * core + 1, sums[core], x, wide[core], accumulate=step > 0)
    for core in range(cores):
        build.store(2 * core, c[core * m : (core + 1) * m, :], sums[core])
    return build.finish()


def streamed(rng: Random) -> Program:
    """A little attention as nodes joined by FIFOs: slots are free when their readers are issued."""
    mapping = rng.choice(("naive", "naive-max", "reordered", "running-max"))
    depths = {"stream.fifo_depth": rng.choice((1, 2)), "stream.long_fifo_depth": 3}
    depths |= {f"stream.{step}_latency": rng.choice((0, 1)) for step in STEPS}
    machine = as_arch("stream-sdpa", depths)
    graph = as_graph(f"attention:heads=1,q={rng.choice((1, 2))},kv=3,d=2,dtype=fp16")
    plan = plan_memory(graph, machine, "bandwidth")
    program = compile_program(
        graph, graph.operators, machine, plan, "bandwidth", (f"stream-{mapping}",)
    )
    tops = [
        max((s.base + s.nbytes for s in program.storages if s.space == x), default=0) + 16
        for x in range(len(program.spaces))
    ]
    spaces = [replace(s, capacity=top) for s, top in zip(program.spaces, tops, strict=True)]
    return replace(program, spaces=tuple(spaces))


MAKERS: tuple[Callable[[Random], Program], ...] = (
    tiled_gemm, vector_chain, operator_chain, cache_append, fan_in, shared_operand, shared_bytes,
    multicast_tiles, streamed,
)  # fmt: skip


def random_program(rng: Random) -> Program:
    """A correct program of a random kind."""
    return rng.choice(MAKERS)(rng)
