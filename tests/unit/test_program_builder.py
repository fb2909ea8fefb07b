"""The builder: dependencies follow from what instructions read and overwrite."""

import pytest

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.opcodes import Function, Opcode
from accelsim.program.storage import View
from accelsim.program.table import AddressSpace, OperatorInfo, StorageInfo, UnitSlot
from accelsim.program.verify import verify

FP32 = FORMATS["fp32"]
QUEUES = 5  # and a vector unit


def builder(limit: int = 1000) -> Builder:
    units = [UnitSlot(f"dma{i}", "dma", 0) for i in range(QUEUES)]
    spaces = [AddressSpace("hbm", "hbm", 4096, -1), AddressSpace("vmem", "vmem", 4096, 0)]
    build = Builder([*units, UnitSlot("vpu", "vpu", 0)], spaces, limit)
    build.begin_operator(OperatorInfo("op", "test", "by-hand", 0))
    return build


def tensor(build: Builder, name: str, base: int, role: str, producer: int = -1, after=()) -> View:
    info = StorageInfo(name, 0, base, 64, role, (4, 4), "fp32", producer)
    return build.storage(info, after).view(4, 4, FP32)


def buffer(build: Builder, name: str, base: int) -> View:
    return build.storage(StorageInfo(name, 1, base, 64, "buffer")).view(4, 4, FP32)


def test_more_waits_than_columns_become_joins() -> None:
    build = builder()
    x, y = tensor(build, "x", 0, "input"), tensor(build, "y", 64, "output", 0)
    a = buffer(build, "a", 0)
    for q in range(QUEUES - 1):
        build.load(q, a[q : q + 1, :], x[q : q + 1, :], part=True)
    build.vector(QUEUES, Function.RELU, a, a)
    build.store(0, y, a)
    program = build.finish()
    assert program.column("opcode").tolist()[4:6] == [Opcode.JOIN, Opcode.VECTOR]
    assert program.deps[4].tolist() == [0, 1, 2]
    assert program.deps[5].tolist() == [3, -1, -1]
    verify(program)


def test_a_tensor_registered_early_waits_for_whoever_used_its_place_since() -> None:
    build = builder()
    x = tensor(build, "x", 0, "input")
    early = tensor(build, "early", 128, "activation", 0)
    late = tensor(build, "late", 128, "output", 1, after=(early.storage,))
    a, b = buffer(build, "a", 0), buffer(build, "b", 64)
    build.load(0, a, x)
    build.store(1, early, a)
    build.begin_operator(OperatorInfo("next", "test", "by-hand", 0))
    build.load(0, b, early)
    reader = build.load(2, a, early)
    last = build.store(3, late, b)
    program = build.finish()
    assert reader in program.deps[last]
    verify(program)


def test_a_place_handed_on_unused_still_waits_for_its_first_user() -> None:
    build = builder()
    x, y = tensor(build, "x", 0, "input"), tensor(build, "y", 64, "output", 0)
    first, unused, third = (
        build.storage(StorageInfo(name, 1, 0, 64, "buffer")) for name in ("a", "b", "c")
    )
    unused.after, third.after = (first,), (unused,)
    load = build.load(0, first.view(4, 4, FP32), x)
    over = build.load(1, third.view(4, 4, FP32), x)
    build.store(2, y, third.view(4, 4, FP32))
    program = build.finish()
    assert program.deps[over].tolist() == [load, -1, -1]
    verify(program)


def test_what_lay_elsewhere_in_an_unused_place_is_not_waited_for() -> None:
    """Of a large buffer that nobody wrote, each small one in it has its own part behind it."""
    build = builder()
    x, y = tensor(build, "x", 0, "input"), tensor(build, "y", 64, "output", 0)
    low, high = (
        build.storage(StorageInfo(n, 1, at, 64, "buffer")) for n, at in (("a", 0), ("b", 64))
    )
    unused = build.storage(StorageInfo("unused", 1, 0, 128, "buffer"), (low, high))
    again = build.storage(StorageInfo("again", 1, 64, 64, "buffer"), (unused,))
    loads = [build.load(q, one.view(4, 4, FP32), x) for q, one in enumerate((low, high))]
    over = build.load(2, again.view(4, 4, FP32), x)
    build.store(3, y, again.view(4, 4, FP32))
    program = build.finish()
    assert program.deps[over].tolist() == [loads[1], -1, -1]
    verify(program)


def test_waits_that_are_already_implied_are_left_out() -> None:
    build = builder()
    x, y = tensor(build, "x", 0, "input"), tensor(build, "y", 64, "output", 0)
    a = buffer(build, "a", 0)
    build.load(0, a, x)
    for _ in range(2):
        build.store(1, y[0:2, :], a[0:2, :])
    assert [row.tolist() for row in build.finish().deps[1:]] == [[0, -1, -1], [-1, -1, -1]]


def test_shapes_that_do_not_agree_are_refused() -> None:
    build = builder()
    x, a = tensor(build, "x", 0, "input"), buffer(build, "a", 0)
    with pytest.raises(AccelsimError, match=r"copy of \[2, 4\] from x into \[4, 4\] of a"):
        build.load(0, a, x[0:2, :])
    with pytest.raises(AccelsimError, match=r"shapes do not agree: \[4, 2\] @ \[4, 4\]"):
        build.matmul(5, a, a[:, 0:2], a, accumulate=False)
    with pytest.raises(AccelsimError, match=r"ROW_SUM of \[4, 4\] gives \[4, 1\]"):
        build.vector(5, Function.ROW_SUM, a, a)
    with pytest.raises(AccelsimError, match=r"cannot broadcast \[2, 4\] to \[4, 4\]"):
        build.vector(5, Function.ADD, a, a, a[0:2, :])
    with pytest.raises(AccelsimError, match="empty window of a: rows 2:2"):
        a[2:2, :]


def test_the_instruction_limit_names_the_operator() -> None:
    build = builder(limit=2)
    x, a = tensor(build, "x", 0, "input"), buffer(build, "a", 0)
    build.load(0, a, x)
    build.load(0, a, x)
    with pytest.raises(AccelsimError, match="op needs about 3 tile instructions"):
        build.load(0, a, x)
