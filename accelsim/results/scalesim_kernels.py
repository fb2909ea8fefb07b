"""Compiled walk over the words of a convolution's ifmap in the order of SCALE-Sim's demand."""

from __future__ import annotations

from typing import Any

from accelsim._jit import njit

OS, WS, IS = 0, 1, 2


@njit
def window_misses(
    pixels: Any, taps: Any, shape: Any, rows: int, cols: int, folds: int, fold_cycles: int,
    dataflow: int, epoch: int, seen: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """(words read from DRAM, cycle that filled the last epoch or -1, cycle of the last word).

    ``pixels`` int64[M, 2]: row and column of each output pixel's window; ``taps`` int64[K, 3]: row,
    column and channel in the window; ``shape``: height, width, channels of the ifmap, beyond which
    nothing is asked for; ``seen`` int64[words], zero: the epoch (from 1) that last fetched a word.
    """
    height, width, channels = shape
    along_rows = len(pixels) if dataflow == OS else len(taps)
    time = len(taps) if dataflow == OS else len(pixels)
    row_folds = -(-along_rows // rows)
    misses, filled, current = 0, 0, 1
    flushed_at, last = -1, -1
    for fold in range(folds):
        col, row = fold // row_folds, fold % row_folds
        used_rows = min(rows, along_rows - row * rows)
        used_cols = min(cols, len(pixels) - col * cols)
        steps = used_rows if dataflow == IS else time + used_rows - 1
        start = rows - used_rows if dataflow == IS else (rows if dataflow == WS else 0)
        for step in range(steps):
            cycle = fold * fold_cycles + start + step
            low = 0 if dataflow == IS else max(0, step - time + 1)
            high = used_cols if dataflow == IS else min(used_rows, step + 1)
            for lane in range(low, high):
                if dataflow == IS:
                    pixel, tap = col * cols + lane, row * rows + used_rows - 1 - step
                elif dataflow == WS:
                    pixel, tap = step - lane, row * rows + lane
                else:
                    pixel, tap = row * rows + lane, step - lane
                y, x = pixels[pixel, 0] + taps[tap, 0], pixels[pixel, 1] + taps[tap, 1]
                if y >= height or x >= width:
                    continue
                last = cycle
                word = (y * width + x) * channels + taps[tap, 2]
                if seen[word] == current:
                    continue
                seen[word] = current
                misses += 1
                filled += 1
                if filled == epoch:
                    filled, current, flushed_at = 0, current + 1, cycle
    return misses, flushed_at, last
