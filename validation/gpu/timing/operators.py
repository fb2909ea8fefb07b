"""The kernels of the grid as torch calls: operands drawn once, and a launch that can be repeated.

Operands are normally distributed (zeros would run faster than any real data). Where a call takes
its destination, that belongs to the operands; what other calls return has to be held by whoever
goes round several sets, or all of them would write to one place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from .grid import Case
from .method import UnavailableError

Tensors = tuple[Any, ...]


@dataclass(frozen=True)
class Kernel:
    """A kernel on some device: ``operands`` draws a set of them, ``launch`` starts it on one.

    ``chosen`` is open around every launch: which library may serve it.
    """

    operands: Callable[[], Tensors]
    launch: Callable[[Tensors], Any]
    chosen: Callable[[], AbstractContextManager[Any]] = nullcontext


def kernel(torch: Any, case: Case, device: str) -> Kernel:
    """How torch runs a case."""
    return _KINDS[case.kind](torch, case, device)


def _torch_type(torch: Any, dtype: str) -> Any:
    names = {"bf16": "bfloat16", "fp16": "float16", "fp8_e4m3": "float8_e4m3fn", "tf32": "float32"}
    return getattr(torch, names.get(dtype, dtype))


def _normal(torch: Any, dtype: str, device: str, *shape: int) -> Any:
    """Normally distributed numbers of a format; int8 uniform over its range."""
    if dtype == "int8":
        return torch.randint(-127, 128, shape, dtype=torch.int8, device=device)
    kind = _torch_type(torch, dtype)
    drawn = torch.bfloat16 if dtype == "fp8_e4m3" else kind
    return torch.randn(shape, dtype=drawn, device=device).to(kind)


def _gemm(torch: Any, case: Case, device: str) -> Kernel:
    """x [m, k] times weights [n, k], transposed as a linear layer reads them."""
    s, dtype = case.size, case.dtype
    result = {"fp8_e4m3": torch.bfloat16, "int8": torch.int32}.get(dtype, _torch_type(torch, dtype))

    def operands() -> Tensors:
        x = _normal(torch, dtype, device, s["m"], s["k"])
        weights = _normal(torch, dtype, device, s["n"], s["k"])
        return x, weights.t(), torch.empty((s["m"], s["n"]), dtype=result, device=device)

    one = torch.ones((), dtype=torch.float32, device=device)

    def launch(given: Tensors) -> Any:
        x, weights, out = given
        if dtype == "int8":
            return torch._int_mm(x, weights, out=out)
        if dtype == "fp8_e4m3":
            return torch._scaled_mm(x, weights, scale_a=one, scale_b=one, out_dtype=result, out=out)
        return torch.mm(x, weights, out=out)

    return Kernel(operands, launch)


def _sparse(torch: Any, case: Case, device: str) -> Kernel:
    """Weights of two non-zeros in every four, compressed, times x transposed (cuSPARSELt)."""
    s, dtype = case.size, case.dtype
    if not hasattr(torch, "_cslt_compress"):
        raise UnavailableError("this torch has no cuSPARSELt")
    result = {"fp8_e4m3": torch.bfloat16, "int8": torch.int32}.get(dtype)

    def operands() -> Tensors:
        weights = _normal(torch, dtype, device, s["n"], s["k"])
        size = weights.to(torch.float32).abs().view(-1, 4)
        keep = torch.zeros_like(size, dtype=torch.bool)
        keep.scatter_(1, size.topk(2, dim=1).indices, True)
        # Bits are masked, not numbers: not every format can be multiplied or selected.
        width = torch.int8 if weights.element_size() == 1 else torch.int16
        bits = weights.view(width).view(-1, 4) * keep.to(width)
        pruned = bits.view(s["n"], s["k"]).view(weights.dtype)
        x = _normal(torch, dtype, device, s["m"], s["k"])
        return torch._cslt_compress(pruned), x.t()

    def launch(given: Tensors) -> Any:
        return torch._cslt_sparse_mm(given[0], given[1], out_dtype=result)

    return Kernel(operands, launch)


def _attention(torch: Any, case: Case, device: str) -> Kernel:
    s = case.size
    attend = torch.nn.functional.scaled_dot_product_attention
    if device == "cpu":
        chosen: Callable[[], AbstractContextManager[Any]] = nullcontext
    else:
        backend = torch.nn.attention.SDPBackend
        wanted = {"flash": backend.FLASH_ATTENTION, "cudnn": backend.CUDNN_ATTENTION}[case.library]

        def chosen() -> AbstractContextManager[Any]:
            found: AbstractContextManager[Any] = torch.nn.attention.sdpa_kernel(wanted)
            return found

    def operands() -> Tensors:
        def draw(heads: int, tokens: int) -> Any:
            return _normal(torch, case.dtype, device, s["batch"], heads, tokens, s["d"])

        return draw(s["heads"], s["q"]), *(draw(s["kv_heads"], s["kv"]) for _ in range(2))

    def launch(given: Tensors) -> Any:
        shared = s["heads"] != s["kv_heads"]
        return attend(*given, is_causal=bool(s["causal"]), enable_gqa=shared)

    return Kernel(operands, launch, chosen)


def _rowwise(torch: Any, case: Case, device: str) -> Kernel:
    s, dtype = case.size, case.dtype
    functional, aten = torch.nn.functional, torch.ops.aten
    cols = (s["cols"],)

    def operands() -> Tensors:
        matrices = [_normal(torch, dtype, device, s["rows"], s["cols"])]
        if case.kind == "add":
            matrices.append(_normal(torch, dtype, device, s["rows"], s["cols"]))
        vectors = [_normal(torch, dtype, device, s["cols"]) for _ in range(2)]
        return (*matrices, *vectors, torch.empty_like(matrices[0]))

    calls: dict[str, Callable[[Tensors], Any]] = {
        "softmax": lambda t: torch.softmax(t[0], -1, out=t[-1]),
        "layernorm": lambda t: functional.layer_norm(t[0], cols, t[1], t[2]),
        "rmsnorm": lambda t: functional.rms_norm(t[0], cols, t[1]),
        "add": lambda t: torch.add(t[0], t[1], out=t[-1]),
        "silu": lambda t: aten.silu.out(t[0], out=t[-1]),
        "gelu_tanh": lambda t: aten.gelu.out(t[0], approximate="tanh", out=t[-1]),
        "relu": lambda t: aten.relu.out(t[0], out=t[-1]),
    }
    return Kernel(operands, calls[case.kind])


def _copy(torch: Any, case: Case, device: str) -> Kernel:
    elements = case.size["bytes"] // 2

    def operands() -> Tensors:
        source = _normal(torch, "bf16", device, elements)
        return source, torch.empty_like(source)

    return Kernel(operands, lambda t: t[1].copy_(t[0]))


_KINDS: dict[str, Callable[[Any, Case, str], Kernel]] = {
    "gemm": _gemm,
    "sparse": _sparse,
    "attention": _attention,
    "copy": _copy,
    **dict.fromkeys(
        ("softmax", "layernorm", "rmsnorm", "add", "silu", "gelu_tanh", "relu"), _rowwise
    ),
}
