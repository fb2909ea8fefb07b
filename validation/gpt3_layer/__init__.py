"""A GPT-3 175B layer on an A100 against silicon: each measured operator, and what they add up to.

One GPU's share of a layer cut over four: prefill of 2048 tokens and decoding at a context of 3072,
both of a batch of 8. The rows are those of the claim ``a100`` that belong to the layer, with its
constants as they are: nothing is fitted here, though the rows that were fitted there (of the layer,
W1_proj in prefill and A_mul_V in decoding) are no test of it. Attention was measured unfused, as
batched products and a softmax, and is simulated so. All-reduces are left out on both sides, and so
are the operators of a layer that measured.csv of ``a100`` has no row of.

Each of the two sums must keep the tolerance; operators are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from accelsim.results.claims import Claim, Row, truth, within

from .. import a100
from ..a100.workloads import LAYER, measured

CLAIM = Claim(
    name="gpt3-layer",
    statement="microseconds of a GPT-3 175B layer's measured operators, one of four A100, fp16",
    source="LLMCompass (BSD-3-Clause), ISCA 2024, artifact of figure 5",
    tolerance=0.10,
    mean_of="sum",
)


def rows() -> Iterator[Row]:
    """Every measured operator of the layer, and their sum per phase."""
    sums: dict[str, tuple[float, float]] = {}
    for r in truth(a100.__name__, "measured.csv"):
        layer = LAYER.fullmatch(r["op"])
        if not layer:
            continue
        phase, took = layer[1], float(r["latency_us"])
        predicted = round(a100.predicted_us(measured(r["op"], r["shape"])), 2)
        expected, simulated = sums.get(phase, (0.0, 0.0))
        sums[phase] = expected + took, simulated + predicted
        yield Row(r["op"], took, predicted, split=f"operator, {r['split']} of a100")
    for phase, (expected, simulated) in sums.items():
        case = f"{phase}, sum of the measured operators"
        total = within(case, round(expected, 2), round(simulated, 2), CLAIM.tolerance)
        yield replace(total, split="sum")
