"""What must emerge on a GPU: waves, sharing in the cache, split K, launches, bandwidth bounds."""

from dataclasses import replace
from itertools import pairwise

import pytest

from accelsim.api import arch, simulate
from accelsim.engine.bind import bind
from accelsim.mapping import cta, thread_blocks
from accelsim.mapping.cta import Gpu, Products, best_grid, ctas
from accelsim.mapping.lowering import lower
from accelsim.program.opcodes import Opcode
from accelsim.program.table import COLUMN
from accelsim.program.verify import verify, violations
from accelsim.simulation import plan_memory
from accelsim.workload import workload

FAST_MEMORY = {"hbm.bandwidth": "100 TB/s", "hbm.efficiency": 1.0, "l2.width": "1 KiB"}


def seconds(work, machine="a100", **overrides):
    return simulate(machine, work, overrides=overrides).seconds


def compiled(work, machine):
    graph = workload(work)
    plan = plan_memory(graph, machine, "bandwidth")
    return lower(graph, graph.operators, machine, plan)


@pytest.fixture
def unsplit(monkeypatch):
    """Grids that leave K whole."""
    best_grid.cache_clear()
    monkeypatch.setattr(cta, "SPLITS", (1,))
    yield
    best_grid.cache_clear()


@pytest.mark.usefixtures("unsplit")
def test_time_grows_by_waves_of_ctas():
    """Of 128 x 128 tiles with deep K, 10 multiprocessors run 10 at a time."""
    machine = arch("a100", {"cores": 10, "tensor.tiles": ["128x128"], **FAST_MEMORY})
    time = {
        tiles: simulate(machine, f"gemm:m=128,n={128 * tiles},k=8192,dtype=fp16").seconds
        for tiles in (10, 11, 20, 21)
    }
    # Two tiles fit into the registers, so a wave is a main loop and hides the store before it.
    assert time[11] == pytest.approx(2 * time[10], rel=0.05)
    assert time[20] == pytest.approx(time[11], rel=0.03)
    assert time[21] == pytest.approx(1.5 * time[20], rel=0.05)


@pytest.mark.usefixtures("unsplit")
def test_a_partly_filled_tile_costs_a_whole_one():
    machine = arch("a100", {"cores": 4, "tensor.tiles": ["128x128"], **FAST_MEMORY})
    full = simulate(machine, "gemm:m=128,n=512,k=4096,dtype=fp16").seconds
    edge = simulate(machine, "gemm:m=65,n=450,k=4096,dtype=fp16").seconds
    assert edge == pytest.approx(full, rel=0.03)


def test_matrices_that_fit_the_cache_come_from_memory_once():
    run = simulate("a100", "gemm:m=2048,n=2048,k=2048,dtype=fp16")
    operands = 2 * 2048 * 2048 * 2
    assert run.traffic_bytes["hbm"]["read"] == operands
    assert run.traffic_bytes["l2"]["read"] > 4 * operands


def test_a_gather_fetches_every_row_that_it_names():
    read = simulate("a100", "embedding:vocab=32000,hidden=4096,tokens=512").traffic_bytes["hbm"]
    rows = 512 * 4096 * 2
    assert rows <= read["read"] <= 1.01 * rows  # and the numbers of the rows


def test_a_wave_shares_its_panels():
    """Each panel is read from memory by one CTA of a wave, not by all that need it."""
    run = simulate("a100", "gemm:m=8192,n=8192,k=8192,dtype=fp16")
    assert run.traffic_bytes["l2"]["read"] > 6 * run.traffic_bytes["hbm"]["read"]


def test_without_a_cache_every_cta_reads_memory():
    machine = arch("a100")
    bare = replace(machine, caches={}, sources={
        path: text for path, text in machine.sources.items() if not path.startswith("l2")
    })  # fmt: skip
    run = simulate(bare, "gemm:m=2048,n=2048,k=2048,dtype=fp16")
    assert run.traffic_bytes["hbm"]["read"] > 4 * 2 * 2048 * 2048 * 2


def test_decoding_streams_the_weights_at_the_speed_of_memory():
    machine = arch("a100")
    weights = 12288 * 12288 * 2
    least = weights / machine.memories["hbm"].peak_bandwidth
    time = simulate(machine, "gemm:m=1,n=12288,k=12288,dtype=fp16").seconds
    assert least < time < 1.05 * least + 5e-6


def gpu(**changes):
    machine = arch("a100")
    return Gpu(**{
        "tensor": machine.units["tensor"], "lsu": machine.units["lsu"], "launch": 1700,
        "cores": 108, "register_bytes": 256 << 10, "memory_bytes": 1160.0, "latency": 204.0,
        "cache_bytes": 5120.0, "cache_capacity": 40 << 20, **changes,
    })  # fmt: skip


def test_k_is_split_where_few_tiles_would_leave_multiprocessors_idle():
    deep = best_grid(Products(128, 1024, 16384, 1, 16, 16), gpu())
    assert deep.split > 1
    assert ctas(Products(128, 1024, 16384, 1, 16, 16), deep) <= 2 * 108
    assert best_grid(Products(8192, 8192, 8192, 1, 16, 16), gpu()).split == 1


@pytest.mark.parametrize(
    ("m", "n", "k"), [(700, 4096, 4096), (72, 4096, 11008), (128, 12288, 4096)]
)
def test_the_chosen_grid_is_near_the_best_of_all(m, n, k, monkeypatch):
    """The closed form against the simulation of every tile, and of splits."""
    work = f"gemm:m={m},n={n},k={k},dtype=fp16"
    chosen = simulate("a100", work).cycles
    machine = arch("a100")
    shape = Products(m, n, k, 1, 16, 16)
    all_of_them = []
    for tile in machine.units["tensor"].shapes:
        for split in (1, 3):

            def only(p, g, tile=tile, split=split):
                return cta._grid(p, g, tile, split)

            monkeypatch.setattr(thread_blocks, "best_grid", only)
            all_of_them.append(simulate(machine, work).cycles)
    assert chosen <= 1.06 * min(all_of_them), shape


def test_large_products_take_large_tiles():
    assert best_grid(Products(8192, 8192, 8192, 1, 16, 16), gpu()).tile in ((256, 128), (128, 256))


@pytest.mark.parametrize("parameter", ["cores", "hbm.bandwidth", "l2.width"])
def test_more_of_anything_is_never_slower(parameter):
    values = {
        "cores": (40, 80, 108, 160),
        "hbm.bandwidth": ("500 GB/s", "1 TB/s", "2 TB/s", "4 TB/s"),
        "l2.width": ("8 B", "16 B", "64 B", "128 B"),
    }[parameter]
    for work in ("gemm:m=700,n=4096,k=4096,dtype=fp16", "softmax:rows=3000,cols=3000,dtype=fp16"):
        times = [seconds(work, **{parameter: value}) for value in values]
        for slower, faster in pairwise(times):
            assert faster <= slower * 1.02, (parameter, work, times)


def test_kernels_follow_each_other_with_a_launch_between():
    small = "elementwise:function=add,rows=4,cols=64,dtype=fp16"
    machine = arch("a100")
    launch = machine.units["simt"].launch
    assert simulate(machine, small).cycles >= launch
    model = "llama-2-7b:layers=1,hidden=64,ffn=96,vocab=100,heads=4,kv_heads=4,tokens=3"
    operators = len(workload(model).operators)
    assert simulate(machine, model).cycles >= operators * launch


def test_a_launch_is_a_barrier_that_the_verifier_needs():
    """Without its waits for the launch, a kernel may read before the one before has written."""
    machine = arch("a100", {"cores": 3})
    program = compiled("llama-2-7b:layers=1,hidden=64,ffn=96,vocab=100,heads=4,tokens=5", machine)
    verify(program)
    launches = program.column("opcode") == Opcode.LAUNCH
    assert launches.sum() >= 10
    table = program.instructions.copy()
    first = COLUMN["dep0"]
    waits = table[:, first : first + 3]
    waits[launches[waits] & (waits >= 0)] = -1
    assert violations(replace(program, instructions=table))


def test_a_launch_costs_few_rows():
    """Joins of a launch grow with the units, not with their square."""
    machine = arch("a100")
    program = compiled("residual:rows=2000,cols=4096,dtype=fp16", machine)
    joins = (program.column("opcode") == Opcode.JOIN).sum()
    assert joins < len(program.units)


def test_a_large_product_is_thousands_of_instructions():
    program = compiled("gemm:m=16384,n=12288,k=12288,dtype=fp16", arch("a100"))
    assert len(program) < 40_000


def test_scalar_kernels_say_so_in_their_rows():
    machine = arch("a100", {"cores": 2})
    program = compiled("rmsnorm:rows=4,cols=64,dtype=fp16", machine)
    from accelsim.program.listing import listing

    assert "LOAD/scalar" in listing(program)
    packets = compiled("layernorm:rows=4,cols=64,dtype=fp16", machine)
    assert "scalar" not in listing(packets)
    assert bind(program, machine).timed.occupancy.sum() > 0


def test_rows_longer_than_the_registers_are_read_again():
    machine = arch("a100", {"cores": 2, "registers.capacity": "16 KiB", "shared.capacity": "4 KiB"})
    whole = simulate("a100", "layernorm:rows=20,cols=3000,dtype=fp16", overrides={"cores": 2})
    pieces = simulate(machine, "layernorm:rows=20,cols=3000,dtype=fp16")
    assert pieces.traffic_bytes["l2"]["read"] > whole.traffic_bytes["l2"]["read"]
