"""Products of few rows: A and C are moved by one transfer each, and the numbers stay right."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.api import as_arch, as_graph, check
from accelsim.program.opcodes import Opcode
from accelsim.program.table import Program
from accelsim.simulation import compile_program, plan_memory


def program_of(machine: str, work: str) -> Program:
    arch, graph = as_arch(machine), as_graph(work)
    plan = plan_memory(graph, arch, "bandwidth")
    return compile_program(graph, graph.operators, arch, plan, "bandwidth")


def transfers(program: Program, opcode: Opcode, tensor: str) -> int:
    """Instructions that load or store a tensor of the workload."""
    side = "src0" if opcode == Opcode.LOAD else "dst"
    rows = np.flatnonzero(program.column("opcode") == opcode)
    storage = program.operand_column("storage")[program.column(side)[rows]]
    names = [program.storages[int(i)].name for i in storage]
    return names.count(tensor)


def test_rows_of_a_flat_product_are_moved_at_once() -> None:
    program = program_of("hbm-npu", "gemm:m=1,k=8192,n=32000")
    assert transfers(program, Opcode.LOAD, "gemm.b") > 100
    assert transfers(program, Opcode.LOAD, "gemm.a") == 1
    assert transfers(program, Opcode.STORE, "gemm.out") == 1


def test_rows_of_others_are_moved_tile_by_tile() -> None:
    program = program_of("hbm-npu", "gemm:m=2048,k=1024,n=8192")
    assert transfers(program, Opcode.LOAD, "gemm.a") > 1
    assert transfers(program, Opcode.STORE, "gemm.out") > 1


def test_an_epilogue_ends_tile_by_tile() -> None:
    """Else the arrays would wait for the vector unit: hazards are tracked buffer by buffer."""
    program = program_of("hbm-npu", "gemm:m=1,k=8192,n=32000,activation=relu")
    assert transfers(program, Opcode.STORE, "gemm.out") > 1


@pytest.mark.parametrize("machine", ["hbm-npu", "edge-npu", "systolic", "quad-npu"])
@pytest.mark.parametrize("work", ["m=1,k=700,n=900", "m=3,k=2100,n=1301", "m=7,k=65,n=5000"])
def test_numbers_are_right_in_both_orders(machine: str, work: str) -> None:
    for order in ("clock", "program"):
        assert check(machine, f"gemm:{work},dtype=int8", order=order).ok  # type: ignore[arg-type]
