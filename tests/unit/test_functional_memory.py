"""Compact address spaces: same address, same byte; poison; windows; refusals."""

import numpy as np
import pytest

from accelsim.errors import AccelsimError
from accelsim.functional.memory import Memory
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.opcodes import Function
from accelsim.program.table import AddressSpace, OperatorInfo, StorageInfo, UnitSlot

FP32, FP16, BF16, INT8 = (FORMATS[n] for n in ("fp32", "fp16", "bf16", "int8"))


def builder():
    spaces = [AddressSpace("hbm", "hbm", 32 << 30, -1), AddressSpace("sp", "sp", 1 << 16, 0)]
    build = Builder([UnitSlot("core0.vpu", "vpu", 0)], spaces)
    build.begin_operator(OperatorInfo("op", "gemm", "test", 0))
    return build


def memory_with(*views, build):
    """A memory in which the views are operands 0, 1, ..."""
    for view in views:
        build.vector(0, Function.COPY, view, view)
    return Memory(build.finish())


def test_only_used_extents_exist():
    build = builder()
    far = build.storage(StorageInfo("x", 0, 31 << 30, 4096, "input"))
    memory = memory_with(far.view(1, 4, FP32), build=build)
    assert sum(b.nbytes for b in memory._bytes) < 10_000


def test_limit_on_host_memory():
    build = builder()
    build.storage(StorageInfo("x", 0, 0, 1 << 20, "input"))
    with pytest.raises(AccelsimError, match="GiB of host memory"):
        Memory(build.finish(), limit_bytes=1 << 16)


def test_overlapping_storages_share_bytes():
    build = builder()
    first = build.storage(StorageInfo("a", 1, 100, 64, "buffer"))
    second = build.storage(StorageInfo("b", 1, 132, 64, "buffer"))
    memory = memory_with(first.view(1, 16, FP32), second.view(1, 16, FP32), build=build)
    memory.write(0, np.arange(16, dtype=np.float32)[None])
    assert memory.read(1)[0, :8].tolist() == list(range(8, 16))


def test_one_address_through_two_formats_and_strides():
    build = builder()
    storage = build.storage(StorageInfo("a", 1, 6, 64, "buffer"))
    whole, column = storage.view(4, 4, FP16), storage.view(4, 1, FP16, offset=2, stride=8)
    memory = memory_with(whole, column, storage.view(4, 4, BF16), build=build)
    memory.write(0, np.arange(16, dtype=np.float32).reshape(4, 4))
    assert memory.read(1)[:, 0].tolist() == [1, 5, 9, 13]
    memory.write(1, np.full((4, 1), 7, dtype=np.float32))
    assert memory.read(0)[2].tolist() == [8, 7, 10, 11]
    assert memory.read(2)[0, 1] != 7  # the same bits mean something else as bf16


@pytest.mark.parametrize("base", [0, 1, 2, 3, 66])
@pytest.mark.parametrize("fmt", [FP32, FP16, BF16], ids=lambda f: f.name)
def test_unwritten_bytes_are_nan(base, fmt):
    build = builder()
    aligned = base - base % (fmt.bits // 8)
    storage = build.storage(StorageInfo("a", 1, aligned, 64, "buffer"))
    memory = memory_with(storage.view(2, 4, fmt), build=build)
    assert np.isnan(memory.read(0)).all()
    memory.write(0, np.zeros((2, 4), dtype=np.float32))
    memory.poison(0)
    assert np.isnan(memory.read(0)).all()


def test_unwritten_integers_are_far_out():
    build = builder()
    storage = build.storage(StorageInfo("a", 1, 0, 64, "buffer"))
    memory = memory_with(storage.view(1, 4, FORMATS["int32"]), build=build)
    assert (np.abs(memory.read(0)) > 2**30).all()


def test_address_outside_every_storage_is_refused():
    build = builder()
    storage = build.storage(StorageInfo("a", 1, 0, 64, "buffer"))
    with pytest.raises(AccelsimError, match=r"\(a\) covers addresses 32..95"):
        memory_with(storage.view(4, 4, FP32, offset=32), build=build)


def test_tensor_storage_has_its_shape():
    build = builder()
    build.storage(StorageInfo("t", 0, 4096, 24, "input", (2, 3, 4), "int8"))
    memory = Memory(build.finish())
    memory.storage(0)[...] = np.arange(24).reshape(2, 3, 4)
    assert memory.storage(0)[1, 2, 3] == 23


def test_tensor_larger_than_its_storage_is_refused():
    build = builder()
    build.storage(StorageInfo("t", 0, 0, 20, "input", (2, 3, 4), "int8"))
    with pytest.raises(AccelsimError, match="20 bytes, too few"):
        Memory(build.finish()).storage(0)
