"""DRAM reads of a convolution's ifmap as SCALE-Sim counts them: windows overlap, so walked."""

from __future__ import annotations

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.results.scalesim_demand import Layer
from accelsim.results.scalesim_memory import Misses
from accelsim.workload.layer_sparsity import kept_steps
from accelsim.workload.operators import Conv2d

MOST_WORDS = 5 * 10**9
"""Longest walk: some ten seconds."""


def walk_windows(op: Conv2d, layer: Layer, epoch: int) -> tuple[Misses, int]:
    """(misses, cycle of the last SRAM read) of the ifmap of a convolution.

    Taps beyond the ifmap, where the last step of a window is completed, are not asked for.
    """
    from accelsim.results.scalesim_kernels import IS, OS, WS, window_misses

    sweeps = 1 if layer.dataflow == "is" else layer.col_folds
    demand = layer.m * layer.k * sweeps
    if demand > MOST_WORDS:
        raise AccelsimError(
            f"no SCALE-Sim report: the ifmap of {op} is asked for {demand:.1e} words; limit"
            f" {MOST_WORDS:.0e}"
        )
    y, x = np.divmod(np.arange(layer.m), op.out_w)
    taps = np.arange(layer.k)
    if steps := kept_steps(op):
        block, offset = np.divmod(taps, steps.kept)
        taps = block * steps.group + offset
    row, rest = np.divmod(taps, op.fw * op.cin)
    column, channel = np.divmod(rest, op.cin)
    words, flushed_at, last = window_misses(
        np.stack((y * op.stride[0], x * op.stride[1]), axis=1),
        np.stack((row, column, channel), axis=1),
        (op.h, op.w, op.cin),
        layer.rows,
        layer.cols,
        layer.folds,
        layer.fold_cycles,
        {"os": OS, "ws": WS, "is": IS}[layer.dataflow],
        epoch,
        np.zeros(op.h * op.w * op.cin, dtype=np.int64),
    )
    return Misses(words, None if flushed_at < 0 else flushed_at), last
