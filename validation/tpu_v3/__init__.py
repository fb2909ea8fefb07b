"""One TPU v3 core against silicon: products, convolutions, row-wise operators, whole models.

The measured programs are PyTorch's, in fp32, at the compiler's default precision (one bf16 pass
through the arrays); their shapes are those of PyTorchSim's experiments. Two constants of the
architecture are calibrated, on the rows marked ``fit`` alone (see ``calibrate``); the verdict is
the mean absolute error over the rows marked ``test``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth

from .workloads import workload_of

CLAIM = Claim(
    name="tpu-v3",
    statement="cycles measured on one TPU v3 core, fp32 tensors, bf16 products",
    source="PyTorchSim artifact (MIT), MICRO 2025, with the predictions of four simulators",
    # PyTorchSim's own mean absolute error on these workloads.
    tolerance=0.115,
    mean_of="test",
)

SIMULATORS = {
    "mNPUsim": "mnpusim_cycles",
    "Timeloop": "timeloop_cycles",
    "MAESTRO": "maestro_cycles",
    "SCALE-Sim v3": "scalesim_v3_cycles_as_published",
}
"""Other simulators, and the columns of their predictions."""


def rows() -> Iterator[Row]:
    """Every measured workload, simulated."""
    for r in truth(__name__, "cycles.csv"):
        measured = int(r["tpuv3_measured_cycles_940MHz"])
        others = {name: float(r[column]) for name, column in SIMULATORS.items() if r[column]}
        yield Row(
            r["workload"], measured, predicted(r["workload"]), split=r["split"], others=others
        )


def predicted(name: str, constants: Mapping[str, object] | None = None) -> int:
    """Simulated cycles of a measured workload, possibly with other constants."""
    return simulate("tpu-v3", workload_of(name), overrides=constants).cycles
