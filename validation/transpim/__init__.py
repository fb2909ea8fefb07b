"""TransPIM beside its published figures: arithmetic in the cells, dataflows, machines around it.

What is simulated: commands of the family ``transpim`` in a channel (operations on rows of cells,
trees, links, refresh), and a whole transformer as so many of them (system/token_sharding), an
encoder of RoBERTa-base's shape at 512 to 8192 tokens. Nothing is fitted. The paper's simulator is
not public, and its text is known here by notes of others; what they leave open decides most:

**How many rows of a bank work at once** (``stripes``). Not known; 16 were assumed, before anything
was compared. With one (transpim-row) products are 90 % of the time and no dataflow matters much:
token over layer 1.14. With all 64 (transpim-all) 3.1. Rows "shown: stripes" tell the others.

**Which data path the layer dataflow has.** Here that of earlier memories: a bank after the other
over the channel's bus. With the ring (``layer_ring``) it is as fast as the token dataflow (1.02),
and faster for 512 tokens, since it keeps its weights where the token dataflow brings them anew
(28 % of its time at 512 tokens). So what the published 4.6 compares cannot be told; 2.3 here.

**Sequences of row operations.** Ambit's cells and the project's own sequences, within 2 % of
SIMDRAM's published counts: 670 for a product of 8 bits, 37 us with refresh. Sums in the cells keep
rows full; the published 10.8 (ACU over sums in the cells) is between 3.9 and 9.2, 5.4 on average,
because long texts share moves and sums that a single one does not; with one stripe 14.

**tFAW.** All banks activate at once, as the paper has it. A rank that opens no more rows than tFAW
allows (transpim-faw) is 70 times slower in the cells.

**Against processors** the published figures do not follow from these parameters, by any choice of
stripes. 16 stripes of 2048 banks are 2^28 bit lines; with a product of 8 bits every 37 us (refresh
included) they make 7.2e12 products a second, 64 stripes 29e12. Tensor cores of an RTX 2080 Ti make
27e12 with fp32 sums. As simulated (fp16, fused kernels, no host) it reads 512 tokens in 3.4 ms,
TransPIM in 26 ms: to be 22 times faster than that, it would have to be 170 times faster than here.
The published baseline must have been slower (in fp32, 13e12 operations a second allow 7 ms at
best; with a millisecond of host calls for a layer it is 12 ms), and the memory faster. Nor does
energy follow: two activations of a row, 670 times for 8192 products, are 140 pJ a product with this
device's currents, several times a GPU's. Near-bank units (Newton's, 16 macs a bank) stream weights
as fast as these cells multiply; the published 9.1 must compare with much smaller ones.

**Decode** of GPT-2-medium has the same lanes idle in both dataflows; functions of single tokens in
the cells are most of it. Against NeuPIMs (one device of four, GPT3-7B) the mean of its authors, 228
from 79 to 431, is of their own model of TransPIM; here 22 to 37 with 16 stripes, 120 to 145 with
one. Operands of 16 bits would take 4.1 times as many row operations.

Judged are arithmetic, counts and four internal figures that the model gives; rows "missed" are
published figures that it does not. Which of them hold was known when they were sorted, and with
another number of stripes others would (rows "shown: stripes"): that the four hold together says
that 16 stripes on a shared bus explain them, not that it was so.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from accelsim.arch.catalog import arch
from accelsim.functional.bit_memory import BitMemory, product, product_by_tokens
from accelsim.hw.pim.layouts.bits import BitPlanes
from accelsim.hw.pim.layouts.layout import BankGrid
from accelsim.hw.pim.programs.cell_sequences import add_operations, multiply_operations
from accelsim.hw.pim.run import run_pim
from accelsim.results.claims import Claim, Row
from accelsim.simulation import simulate_graph
from accelsim.system.cell_text import decode
from accelsim.system.cell_work import CellTime, CellWork
from accelsim.system.token_sharding import DATAFLOWS, TokenSharding
from accelsim.workload import operators as ops
from accelsim.workload import workload
from accelsim.workload.graph import Graph

CLAIM = Claim(
    name="transpim",
    statement="TransPIM: products in the cells bit for bit; counts of row operations; what the "
    "ring saves, shares of movement and sums, use of lanes, at 512 to 8192 tokens",
    source="Zhou et al., TransPIM, HPCA 2022, as notes of others on its text tell; SIMDRAM, ASPLOS "
    "2021; Heo et al., NeuPIMs, ASPLOS 2024, figure 15",
    tolerance=0.10,
    mean_of="published",
)

MODEL = "roberta-32k"
LENGTHS = (512, 1024, 2048, 4096, 8192)
ON_GPU = (512, 2048)
SHAPES = 24

RING, MOVING, UTILISATION, LAYER_UTILISATION = 4.1, 0.60, 0.458, 0.308
REDUCING = (0.23, 0.32)
TOKEN_OVER_LAYER, ACU_TIME, ACU_ENERGY = 4.6, 10.8, 5.7
OVER_PIM_ONLY, OVER_NEAR_BANK = 3.7, 9.1
OVER_GPU, OVER_TPU = (22.1, 114.9), (8.7, 57.4)
ENERGY_GPU = (138.1, 666.6)
DECODE, DECODE_ENERGY = 1.4, 2.1
NEUPIMS_OVER = (79.0, 431.0)
GPU_WATTS = 250.0
"""Power of the reference board: NVIDIA Turing whitepaper."""


def rows() -> Iterator[Row]:
    """Arithmetic, what the machine does by itself, and what it gains over others."""
    yield from arithmetic_rows()
    yield from internal_rows("transpim")
    for family in ("transpim-row", "transpim-all"):
        yield from stripe_rows(family)
    yield from path_rows()
    yield from decode_rows()
    yield from processor_rows()
    yield from memory_rows()


# --- arithmetic


def arithmetic_rows() -> Iterator[Row]:
    """Counts beside SIMDRAM's, and wrong results of random products in the cells."""
    for bits in (8, 16, 32):
        total, both = 8 * bits + 1, 11 * bits**2 - 5 * bits - 1
        yield near(f"row operations of a sum of {bits} bits", total, add_operations(bits))
        yield near(f"row operations of a product of {bits} bits", both, multiply_operations(bits))
    wrong = sum(_wrong(random.Random(f"cells {i}"), i) for i in range(SHAPES))
    yield Row("wrong results of random products in the cells", 0, wrong, wrong == 0, "exact")


def _wrong(generator: random.Random, seed: int) -> int:
    """Results that are not the product's, by one vector for all banks, and by tokens."""
    grid = BankGrid(
        generator.randint(1, 2), generator.choice((2, 4)), 2048, generator.choice((16, 32)), 8, 1
    )
    planes = BitPlanes(grid, 512, generator.choice((1, 2, 4)))
    m, n = generator.randint(1, 60), generator.randint(1, 300)
    draw = np.random.default_rng(seed)
    w, x = draw.integers(-128, 128, (m, n)), draw.integers(-128, 128, n)
    wrong = 0
    for layout, multiply in (
        (planes.matrix(m, n), product), (planes.by_tokens(m, n), product_by_tokens),
    ):  # fmt: skip
        memory = BitMemory(planes)
        memory.store(layout, w)
        wrong += int((memory.load(layout) != w).sum() + (multiply(memory, x, m) != w @ x).sum())
    return wrong


# --- the machine by itself


def internal_rows(family: str) -> Iterator[Row]:
    """Means over the lengths: ratios geometric, shares arithmetic."""
    for case, expected, measured in _figures(family, judged=True):
        yield near(f"{family}: {case}", expected, measured)
    low, high = REDUCING
    share = mean(lambda n: _share(_run(family, n, "layer", False, False)))
    case = f"{family}: sums, layer dataflow without ring and ACU (published 0.23 to 0.32)"
    yield Row(case, min(max(share, low), high), share, low <= share <= high, "published")
    for case, expected, measured in _figures(family, judged=False):
        yield Row(f"{family}: {case}", expected, measured, split="missed")


def stripe_rows(family: str) -> Iterator[Row]:
    """The same figures with other numbers of stripes."""
    for judged in (True, False):
        for case, expected, measured in _figures(family, judged):
            yield Row(f"{family}: {case}", expected, measured, split="shown: stripes")


def path_rows() -> Iterator[Row]:
    """Token over layer dataflow where the layer dataflow has the ring, and as tFAW has it."""
    ringed, faw = 0.0, 0.0
    for tokens in LENGTHS:
        layer = TokenSharding(dataflow="layer", layer_ring=True).run(_graph(tokens)).seconds
        ringed += math.log(layer / _run("transpim", tokens, "token", True, True).seconds)
        slow = [_run("transpim-faw", tokens, one, True, True).seconds for one in DATAFLOWS]
        faw += math.log(slow[1] / slow[0])
    for case, total in (("both with the ring", ringed), ("transpim-faw", faw)):
        gain = math.exp(total / len(LENGTHS))
        name = f"token over layer dataflow, {case}"
        yield Row(name, TOKEN_OVER_LAYER, gain, split="shown: paths")


def _figures(family: str, judged: bool) -> list[tuple[str, float, float]]:
    def ratio(upper: Callable[[int], float], lower: Callable[[int], float]) -> float:
        return math.exp(mean(lambda n: math.log(upper(n) / lower(n))))

    def token(n: int, ring: bool = True, acu: bool = True) -> CellTime:
        return _run(family, n, "token", ring, acu)

    def layer(n: int) -> CellTime:
        return _run(family, n, "layer", False, True)

    def moved(run: CellTime) -> float:
        return run.weights + run.moves

    def used(n: int, dataflow: str) -> float:
        machine = TokenSharding(family, dataflow)
        return machine.utilisation(_graph(n))

    if judged:
        return [
            ("movement without the ring over with it", RING,
             ratio(lambda n: moved(token(n, ring=False)), lambda n: moved(token(n)))),
            ("share of movement, layer dataflow", MOVING, mean(lambda n: layer(n).moving)),
            ("lanes in use, token dataflow", UTILISATION, mean(lambda n: used(n, "token"))),
        ]  # fmt: skip
    return [
        ("lanes in use, layer dataflow", LAYER_UTILISATION, mean(lambda n: used(n, "layer"))),
        ("token over layer dataflow", TOKEN_OVER_LAYER,
         ratio(lambda n: layer(n).seconds, lambda n: token(n).seconds)),
        ("sums without ACU over with it", ACU_TIME,
         ratio(lambda n: token(n, acu=False).sums, lambda n: token(n).sums)),
        ("energy of a product's sums, without ACU over with it", ACU_ENERGY, _acu_energy(family)),
        ("over PIM only (no ACU, no ring)", OVER_PIM_ONLY,
         ratio(lambda n: token(n, ring=False, acu=False).seconds, lambda n: token(n).seconds)),
    ]  # fmt: skip


def mean(figure: Callable[[int], float]) -> float:
    """Over the lengths."""
    return sum(figure(n) for n in LENGTHS) / len(LENGTHS)


def _share(run: CellTime) -> float:
    return run.sums / run.seconds


def _acu_energy(family: str) -> float:
    """Of the first product of a feed-forward network, 512 tokens: 768 outputs of a bank."""
    machine = TokenSharding(family)
    with_it, without = (CellWork(machine.pim, acu=acu).summed(768, 768) for acu in (True, False))
    return without.joules / with_it.joules


@cache
def _graph(tokens: int) -> Graph:
    return workload(MODEL, tokens=tokens)


@cache
def _run(family: str, tokens: int, dataflow: str, ring: bool, acu: bool) -> CellTime:
    machine = TokenSharding(family, dataflow, ring=ring, acu=acu)
    return machine.run(_graph(tokens))


# --- over others


def decode_rows() -> Iterator[Row]:
    """GPT-2-medium, 128 tokens behind a prompt of 128."""
    token, layer = (
        decode("gpt2-medium", TokenSharding(dataflow=one), 128, 128, 1)
        for one in ("token", "layer")
    )
    case = "gpt2-medium decode, token over layer dataflow"
    yield Row(case, DECODE, layer.seconds / token.seconds, split="missed")
    yield Row(f"{case}, energy", DECODE_ENERGY, layer.joules / token.joules, split="missed")


def processor_rows() -> Iterator[Row]:
    """An encoder on RTX 2080 Ti (fp16) and TPU v3, as simulated, over TransPIM."""
    gpu, tpu = arch("rtx-2080ti"), arch("tpu-v3")
    for tokens in ON_GPU:
        run = _run("transpim", tokens, "token", True, True)
        on_gpu = simulate_graph(workload(MODEL, tokens=tokens, dtype="fp16"), gpu).seconds
        on_tpu = simulate_graph(workload(MODEL, tokens=tokens), tpu).seconds
        name = f"encoder, {tokens} tokens"
        yield beyond(f"{name}, over RTX 2080 Ti", on_gpu / run.seconds, OVER_GPU)
        yield beyond(f"{name}, over TPU v3", on_tpu / run.seconds, OVER_TPU)
        energy = on_gpu * GPU_WATTS / run.joules
        yield beyond(f"{name}, energy over RTX 2080 Ti at 250 W", energy, ENERGY_GPU)


def memory_rows() -> Iterator[Row]:
    """Newton's units with every token's products streamed past them, and NeuPIMs."""
    near_bank = run_pim("newton", "gemv:m=4096,n=4096")
    for tokens in ON_GPU:
        graph = _graph(tokens)
        macs = sum(op.macs for op in graph.operators if isinstance(op, ops.Gemm | ops.Attention))
        seconds = macs / 64 * near_bank.seconds / near_bank.macs
        gain = seconds / _run("transpim", tokens, "token", True, True).seconds
        yield Row(f"encoder, {tokens} tokens, over Newton's units", OVER_NEAR_BANK, gain,
                  split="missed")  # fmt: skip
    for batch in (64, 256):
        graph = workload("gpt3-7b", phase="decode", batch=batch, context=376, tp=4)
        device = simulate_graph(graph, arch("neupims")).seconds
        for family in ("transpim", "transpim-row"):
            gain = TokenSharding(family, stacks=4).run(graph).seconds / device
            row = beyond(
                f"NeuPIMs over {family}, gpt3-7b decode, batch {batch}", gain, NEUPIMS_OVER
            )
            yield row


def near(case: str, expected: float, measured: float) -> Row:
    """A judged row."""
    good = abs(measured - expected) <= CLAIM.tolerance * expected
    return Row(case, expected, measured, good, "published")


def beyond(case: str, measured: float, bounds: tuple[float, float]) -> Row:
    """A row that expects the nearest figure of a published range; told, not judged."""
    low, high = bounds
    split = "shown: inside" if low <= measured <= high else "missed"
    case = f"{case} (published {low:g} to {high:g})"
    return Row(case, min(max(measured, low), high), measured, split=split)
