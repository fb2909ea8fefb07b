"""The largest error of exp_fp32 and exp2_fp32 over every fp32 argument, in units of the last place.

    python tests/bench/exponentials.py        about two minutes on one core

All arguments are tried whose results are neither flushed nor infinite: 2.2e9 for each function. The
reference is float64, whose own error of one unit in its last place is 2^-29 of one in fp32's.
"""

import math
import time

import numpy as np

from accelsim._jit import njit
from accelsim.numerics import exp_kernels
from accelsim.numerics.functions import EXP_ULP

CHUNK = 1 << 20
SIGN = 1 << 31


@njit
def largest_error(x, got, natural, found):
    """Put the largest error of ``got``, in ulps, and its place into ``found`` if it is larger."""
    for i in range(len(x)):
        v = np.float64(x[i])  # float() of an fp32 stays one when it is compiled
        want = math.exp(v) if natural else 2.0**v
        if want < 2.0**-126 or got[i] > 3.4028234663852886e38:
            continue
        _, exponent = math.frexp(want)
        ulps = abs(np.float64(got[i]) - want) * math.ldexp(1.0, 24 - exponent)
        if ulps > found[0]:
            found[0] = ulps
            found[1] = v


def worst(name, lowest, highest):
    """(ulps, argument, arguments tried) over all fp32 from ``lowest`` (below 0) to ``highest``."""
    kernel, natural = getattr(exp_kernels, name), name == "exp"
    out, found, tried = np.empty(CHUNK, np.float32), np.zeros(2), 0
    for sign, end in ((0, highest), (SIGN, -lowest)):
        last = int(np.float32(end).view(np.uint32)) + 1
        for first in range(0, last, CHUNK):
            codes = np.arange(first, min(first + CHUNK, last), dtype=np.uint32) + np.uint32(sign)
            x = codes.view(np.float32)
            kernel(x, out[: len(x)])
            largest_error(x, out[: len(x)], natural, found)
            tried += len(x)
    return found[0], found[1], tried


if __name__ == "__main__":
    for name, lowest, highest in (("exp2", -126.0, 128.0), ("exp", -87.34, 88.73)):
        start = time.perf_counter()
        ulps, at, tried = worst(name, lowest, highest)
        seconds = time.perf_counter() - start
        print(
            f"{name}: {ulps:.6f} ulp at {at.hex()} ({at:.9g}), {tried:,} arguments, {seconds:.0f} s"
        )
        assert ulps < EXP_ULP
