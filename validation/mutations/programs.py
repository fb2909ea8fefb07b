"""Small workloads that make the built-in mappers do everything they can.

Remainder tiles, rings of buffers, sums in pieces, several arrays and cores, padding, grouped
heads, caches and the glue between operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accelsim.api import as_arch, as_graph
from accelsim.arch.model import Architecture
from accelsim.numerics.formats import number_format
from accelsim.program.table import Program
from accelsim.simulation import compile_program, plan_memory
from accelsim.workload.graph import Graph

SMALL: dict[str, object] = {"array.rows": 8, "array.cols": 8}
TIGHT: dict[str, object] = {
    **SMALL,
    "ifmap.capacity": 1024,
    "filter.capacity": 1024,
    "ofmap.capacity": 2048,
}
TINY_TPU: dict[str, object] = {"mxu.rows": 16, "mxu.cols": 16, "vmem.capacity": 16384}
CODED: dict[str, object] = {"mxu.rows": 16, "mxu.cols": 16, "vmem.capacity": 16384}
INT8 = "gemm:m=20,n=12,k=27,dtype=int8"
LAYER = "layers=1,hidden=32,ffn=48,vocab=40,batch=2,heads=4"

CASES: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("systolic", INT8, {**SMALL, "array.dataflow": "ws"}),
    ("systolic", INT8, {**SMALL, "array.dataflow": "os"}),
    ("systolic", INT8, {**SMALL, "array.dataflow": "is"}),
    ("systolic", "gemm:m=40,n=30,k=150,dtype=int8", TIGHT),
    ("systolic", "gemm:m=13,n=20,k=45,bias=true", {**TIGHT, "array.dataflow": "os"}),
    ("systolic", "gemm:m=20,n=30,k=90", {**TIGHT, "array.dataflow": "is"}),
    ("tpu-v3", "gemm:m=50,n=44,k=70,batch=2", TINY_TPU),
    ("quad-npu", "gemm:m=70,n=45,k=90,dtype=int8", {}),
    ("edge-npu", "gemm:m=40,n=36,k=50,dtype=int8", {"array.count": 2}),
    ("onnxim-server", "gemm:m=40,n=36,k=50,dtype=int8", {"array.rows": 16, "array.cols": 16}),
    ("mesh-npu", "gemm:m=40,n=36,k=70,dtype=int8", {"cores": 4}),
    ("mesh-npu", "gemm:m=50,n=44,k=70,bias=true", {"cores": 6, "spad.capacity": 8192}),
    ("coded-npu", "gemm:m=20,n=44,k=72,dtype=int8,sparsity=2:4", CODED),
    ("coded-npu", "gemm:m=20,n=44,k=72,sparsity=0.4,encoding=bitmap", CODED),
    ("quad-npu", "conv2d:h=5,w=6,cin=3,cout=5,fh=3,fw=3,padding=1", {}),
    ("edge-npu", "conv2d:h=7,w=5,cin=4,cout=6,fh=3,fw=3,padding=1,stride=2,groups=2", {}),
    ("quad-npu", "attention:heads=4,kv_heads=2,q=10,kv=14,d=8,causal=true", {}),
    ("tpu-v3", "attention:heads=4,kv_heads=1,q=5,kv=20,d=16", {}),
    ("quad-npu", f"llama-2-7b:{LAYER},kv_heads=2,tokens=3", {}),
    ("tpu-v3", f"qwen2.5-7b:{LAYER},kv_heads=2,phase=decode,context=7", {}),
    ("edge-npu", f"gpt2:{LAYER},positions=16,tokens=3", {}),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A mapped program and what it was mapped from."""

    name: str
    arch: Architecture
    graph: Graph
    program: Program

    @property
    def has_floats(self) -> bool:
        """Whether the size of its values matters."""
        return any(number_format(t.dtype).is_float for t in self.graph.tensors.values())


def cases() -> Iterator[Case]:
    """Every case, lowered and verified as for a simulation."""
    for machine, workload, overrides in CASES:
        arch, graph = as_arch(machine, overrides), as_graph(workload)
        plan = plan_memory(graph, arch, "bandwidth")
        program = compile_program(graph, graph.operators, arch, plan, "bandwidth")
        yield Case(f"{workload} on {machine}", arch, graph, program)
