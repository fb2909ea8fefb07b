"""Matrix products and attention of NVIDIA's libraries, with the algorithm that they chose.

cublaslt      the first algorithm of cuBLASLt's heuristic, run as such, its configuration recorded
scaled_mm     torch._scaled_mm, fp8 with scales of one; ``fast``: with fast accumulation
int_mm        torch._int_mm
cusparselt    torch._cslt_sparse_mm on what torch._cslt_compress makes, algorithm 0, no split
sdpa          scaled_dot_product_attention by its flash kernel

What a library decides about the order is not declared: the replay says which plan explains it.
"""

from __future__ import annotations

import ctypes
import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cases import HEAD, Case
from ..operands import Operands, spread

Put = Callable[[Any], Any]
NAMES = ("cublaslt", "scaled_mm", "scaled_mm_fast", "int_mm", "cusparselt", "sdpa")
NEEDS = {"scaled_mm": "_scaled_mm", "scaled_mm_fast": "_scaled_mm", "int_mm": "_int_mm",
         "cusparselt": "_cslt_sparse_mm"}  # fmt: skip


def refusal(torch: Any, kernel: str) -> str:
    """Why a library's kernel cannot run, "" if it can."""
    function = NEEDS.get(kernel, "")
    if function and not hasattr(torch, function):
        return f"this torch has no {function}"
    if kernel == "cusparselt" and not torch.backends.cusparselt.is_available():
        return "this torch was built without cuSPARSELt"
    return ""


def run(torch: Any, case: Case, given: Operands, put: Put) -> tuple[Any, dict[str, Any]]:
    """A case's output as a tensor, and what is known of how it was computed."""
    match case.kernel:
        case "cublaslt":
            return _cublaslt(torch, case, given, put)
        case "scaled_mm" | "scaled_mm_fast":
            return _scaled_mm(torch, case, given, put), {}
        case "int_mm":
            a, b = _matrix(torch, case, given, put, "a"), _matrix(torch, case, given, put, "b")
            return torch._int_mm(a, b.t()), {}
        case "cusparselt":
            return _cusparselt(torch, case, given, put), {}
        case _:
            return _sdpa(torch, case, given, put), {}


def types(torch: Any) -> dict[str, Any]:
    """torch's types by format."""
    return {
        "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "int8": torch.int8,
        "int32": torch.int32, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2,
    }  # fmt: skip


def _matrix(torch: Any, case: Case, given: Operands, put: Put, name: str) -> Any:
    """a[m, k] or b[n, k] on the GPU."""
    codes = given[name]
    if name == "a" and "pairs" in given:
        codes = spread(codes, given["pairs"])
    kind = types(torch)[case.a if name == "a" else case.b]
    return put(codes).view(kind).reshape(codes.shape)


def _scaled_mm(torch: Any, case: Case, given: Operands, put: Put) -> Any:
    a, b = (_matrix(torch, case, given, put, name) for name in ("a", "b"))
    one = torch.ones((), device=a.device, dtype=torch.float32)
    fast = case.kernel.endswith("fast")
    return torch._scaled_mm(
        a, b.t(), scale_a=one, scale_b=one, out_dtype=types(torch)[case.out], use_fast_accum=fast
    )


def _cusparselt(torch: Any, case: Case, given: Operands, put: Put) -> Any:
    a, b = (_matrix(torch, case, given, put, name) for name in ("a", "b"))
    wanted = types(torch)[case.out]
    out = None if case.out == case.a else wanted
    return torch._cslt_sparse_mm(torch._cslt_compress(a), b.t(), out_dtype=out, alg_id=0)


def _sdpa(torch: Any, case: Case, given: Operands, put: Put) -> Any:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kind = types(torch)[case.a]
    q, k, v = (put(given[x]).view(kind).reshape(1, 1, -1, HEAD) for x in ("q", "k", "v"))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return found.reshape(case.m, HEAD)


# --- cuBLASLt, by its C interface: torch does not say which algorithm it took

CUDA_TYPES = {"fp32": 0, "fp16": 2, "bf16": 14}
COMPUTE_32F, OP_T = 68, 1
DESC_TRANSA, PREFERENCE_WORKSPACE = 3, 1
WORKSPACE_BYTES = 32 << 20
CONFIGURATION = {
    "algorithm": 0, "tile": 1, "split_k": 2, "reduction": 3, "swizzle": 4, "custom": 5,
    "stages": 6, "inner": 7, "cluster": 8,
}  # fmt: skip
"""Attributes of an algorithm (cublasLtMatmulAlgoConfigAttributes_t)."""


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algo", ctypes.c_uint64 * 8), ("workspace", ctypes.c_size_t), ("state", ctypes.c_int),
        ("waves", ctypes.c_float), ("reserved", ctypes.c_int * 4),
    )  # fmt: skip


def _library(torch: Any) -> Any:
    """cuBLASLt as torch loaded it, or as it lies beside torch."""
    site = Path(torch.__file__).resolve().parent.parent
    names = sorted(glob.glob(str(site / "nvidia" / "*" / "lib" / "libcublasLt.so.*")))
    for name in (*names, "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError("libcublasLt was not found")


def _must(code: int, what: str) -> None:
    if code:
        raise RuntimeError(f"cuBLASLt error {code} at {what}")


def _cublaslt(
    torch: Any, case: Case, given: Operands, put: Put
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """d = a b^T: to cuBLASLt, whose matrices are column by column, d^T[n, m] = b^T.. transposed."""
    lt = _library(torch)
    lt.cublasLtGetVersion.restype = ctypes.c_size_t
    a, b = (_matrix(torch, case, given, put, name) for name in ("a", "b"))
    out = torch.full((case.m, case.n), float("nan"), dtype=types(torch)[case.out], device=a.device)
    space = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=a.device)
    handle, desc = ctypes.c_void_p(), ctypes.c_void_p()
    _must(lt.cublasLtCreate(ctypes.byref(handle)), "create")
    _must(lt.cublasLtMatmulDescCreate(ctypes.byref(desc), COMPUTE_32F, CUDA_TYPES["fp32"]), "desc")
    transposed = ctypes.c_int32(OP_T)
    _must(lt.cublasLtMatmulDescSetAttribute(
        desc, DESC_TRANSA, ctypes.byref(transposed), ctypes.c_size_t(4)), "transpose")  # fmt: skip
    shapes = ((case.b, case.k, case.n), (case.a, case.k, case.m), (case.out, case.n, case.m))
    layouts = [_layout(lt, CUDA_TYPES[fmt], rows, columns) for fmt, rows, columns in shapes]
    found = _heuristic(lt, handle, desc, layouts)
    alpha, beta = ctypes.c_float(1), ctypes.c_float(0)
    left, right, d = (ctypes.c_void_p(x.data_ptr()) for x in (b, a, out))
    code = lt.cublasLtMatmul(
        handle, desc, ctypes.byref(alpha), left, layouts[0], right, layouts[1], ctypes.byref(beta),
        d, layouts[2], d, layouts[2], ctypes.byref(found.algo), ctypes.c_void_p(space.data_ptr()),
        ctypes.c_size_t(WORKSPACE_BYTES), ctypes.c_void_p(0),
    )  # fmt: skip
    _must(code, "matmul")
    torch.cuda.synchronize()
    said = {"configuration": _configuration(lt, found), "version": int(lt.cublasLtGetVersion())}
    for layout in layouts:
        lt.cublasLtMatrixLayoutDestroy(layout)
    lt.cublasLtMatmulDescDestroy(desc)
    lt.cublasLtDestroy(handle)
    return out, said


def _layout(lt: Any, kind: int, rows: int, columns: int) -> ctypes.c_void_p:
    layout = ctypes.c_void_p()
    code = lt.cublasLtMatrixLayoutCreate(
        ctypes.byref(layout), kind, ctypes.c_uint64(rows), ctypes.c_uint64(columns),
        ctypes.c_int64(rows),
    )  # fmt: skip
    _must(code, "layout")
    return layout


def _heuristic(lt: Any, handle: Any, desc: Any, layouts: list[ctypes.c_void_p]) -> Heuristic:
    preference, found, count = ctypes.c_void_p(), Heuristic(), ctypes.c_int()
    _must(lt.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)), "preference")
    size = ctypes.c_uint64(WORKSPACE_BYTES)
    code = lt.cublasLtMatmulPreferenceSetAttribute(
        preference, PREFERENCE_WORKSPACE, ctypes.byref(size), ctypes.c_size_t(8)
    )
    _must(code, "workspace")
    b, a, d = layouts
    code = lt.cublasLtMatmulAlgoGetHeuristic(
        handle, desc, b, a, d, d, preference, 1, ctypes.byref(found), ctypes.byref(count)
    )
    lt.cublasLtMatmulPreferenceDestroy(preference)
    _must(code, "heuristic")
    if not count.value:
        raise RuntimeError("cuBLASLt has no algorithm for this product")
    return found


def _configuration(lt: Any, found: Heuristic) -> dict[str, int]:
    """What the algorithm is: the attributes that decide about bits, and the tile."""
    settings = {}
    for name, number in CONFIGURATION.items():
        value, written = ctypes.c_uint32(), ctypes.c_size_t()
        size = 2 if name in ("inner", "cluster") else 4
        code = lt.cublasLtMatmulAlgoConfigGetAttribute(
            ctypes.byref(found.algo), number, ctypes.byref(value), ctypes.c_size_t(size),
            ctypes.byref(written),
        )  # fmt: skip
        if code == 0:
            settings[name] = int(value.value)
    return settings
