"""What the rows of the latency grid mean as workloads, and their simulated times.

A row with a warm L2 cache is the second of two equal kernels on the same operands; one with a cold
cache is the kernel alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from accelsim.api import arch, simulate
from accelsim.arch import Architecture
from accelsim.errors import AccelsimError

from ..a100.workloads import AGAIN, twice
from ..gpu.timing.grid import Case, Row

MACHINE = "h200"
COPY_COLS = 1 << 16
"""Columns of the matrix that stands for what is copied."""


def simulated_us(row: Row, constants: Mapping[str, object] | None = None) -> float:
    """Simulated microseconds of a row, possibly with other constants than the architecture's."""
    return microseconds(arch(MACHINE, constants), row)


def microseconds(machine: Architecture, row: Row) -> float:
    """Simulated microseconds of a row on a machine."""
    text = workload_text(row.case)
    if row.cache == "cold":
        return simulate(machine, text).seconds * 1e6
    run = simulate(machine, twice(text))
    (again,) = (one for one in run.operators if one.name == AGAIN)
    return again.cycles / run.clock_hz * 1e6


def workload_text(case: Case) -> str:
    """The inline operator that a case of the grid is.

    Raises:
        AccelsimError: a kind that is not known here.
    """
    if case.kind not in _TEXTS:
        raise AccelsimError(f"no workload for {case.name!r}; known kinds: {', '.join(_TEXTS)}")
    return _TEXTS[case.kind](case)


def _gemm(case: Case) -> str:
    # A linear layer reads its weights row by row of the result's columns.
    return f"gemm:{_sizes(case)},transpose_b=true,dtype={case.dtype}"


def _sparse(case: Case) -> str:
    return f"{_gemm(case)},sparsity=2:4"


def _attention(case: Case) -> str:
    s = case.size
    sizes = ",".join(f"{key}={s[key]}" for key in ("heads", "kv_heads", "d", "q", "kv", "batch"))
    causal = "true" if s["causal"] else "false"
    return f"attention:{sizes},causal={causal},dtype={case.dtype}"


def _rows(case: Case) -> str:
    return f"{case.kind}:{_sizes(case)},dtype={case.dtype}"


def _function(case: Case) -> str:
    return f"activation:function={case.kind},{_sizes(case)},dtype={case.dtype}"


def _sum(case: Case) -> str:
    return f"elementwise:function=add,{_sizes(case)},dtype={case.dtype}"


def _copy(case: Case) -> str:
    # Read once and written once, with an instruction between that costs nothing beside it.
    elements = case.size["bytes"] // 2
    cols = min(elements, COPY_COLS)
    return f"activation:function=relu,rows={elements // cols},cols={cols},dtype={case.dtype}"


def _sizes(case: Case) -> str:
    return ",".join(f"{key}={value}" for key, value in case.sizes)


_TEXTS: dict[str, Callable[[Case], str]] = {
    "gemm": _gemm,
    "sparse": _sparse,
    "attention": _attention,
    "copy": _copy,
    "add": _sum,
    **dict.fromkeys(("softmax", "layernorm", "rmsnorm"), _rows),
    **dict.fromkeys(("silu", "gelu_tanh", "relu"), _function),
}
