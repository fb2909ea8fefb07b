"""The GPU of this machine: our CUDA kernels through the driver, Triton's, and the libraries'.

Imports torch when a device is made. Outputs are filled with a pattern before each launch, another
one each time, so that what a kernel does not write changes from run to run and is found out.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError

from .. import provenance, sweeps
from ..cases import CASTS, Case
from ..inputs import Codes, dtype_of
from ..operands import Operands, exact_outputs, output_dtype, output_shape
from . import nvcc

INSTRUCTION_THREADS = {"mma": 32, "sparse": 32, "wgmma": 128}
COMPILED = (*INSTRUCTION_THREADS, "gemv", "attention", "unary", "cast", "sweep_unary",
            "sweep_cast")  # fmt: skip
ROWS_OF_A_WARP = 16
SIMT_BLOCKS, SIMT_THREADS = 1024, 256
ONE, FEW = 0x3F800000, 1 << 12
"""The word of 1, and how many words behind it a sweep is compared with the plain kernel on."""
SCALE, LOG2_E = 0.125, 1.4426950408889634
"""Of the scores of an attention 64 wide."""


class CudaDevice:
    """One CUDA GPU; ``build`` is where machine code is kept while it is needed."""

    def __init__(self, build: Path) -> None:
        try:
            import torch
            import triton  # noqa: F401
        except ImportError as fault:
            raise AccelsimError(f"a GPU is reached through torch and triton: {fault}") from fault
        if not torch.cuda.is_available():
            raise AccelsimError("torch sees no CUDA GPU on this machine")
        torch.zeros(1, device="cuda")  # makes the context that the driver's calls go to
        self._torch = torch
        self._build = build
        self._modules: dict[str, Module] = {}
        self._poison = 0
        self._layouts: dict[tuple[str, str], str] = {}
        self.readings = provenance.Nvml(provenance.gpu_identity())
        major, minor = torch.cuda.get_device_capability()
        self.capability = f"{major}.{minor}"

    def machine(self) -> dict[str, Any]:
        """Its provenance."""
        return provenance.machine()

    def built(self, sources: Sequence[str]) -> dict[str, Any]:
        """Machine code by source: its digest, and the matrix instructions in it."""
        modules = {f"devices/kernels/{name}": one for name, one in self._modules.items()}
        return {name: modules[name].about for name in sources if name in modules}

    def refusal(self, kernel: str) -> str:
        """Why a kernel cannot run here, "" if it can."""
        from . import libraries

        if kernel in COMPILED and not nvcc.find_nvcc():
            return "nvcc was not found: neither on the PATH nor in CUDA_HOME"
        return libraries.refusal(self._torch, kernel)

    def answers(self) -> bool:
        """Whether it still runs kernels: an illegal access ends that for the whole process."""
        try:
            return bool(self._torch.ones(1, device="cuda").item() == 1)
        except RuntimeError:
            return False

    def run(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        """A case's outputs as bit patterns, and what the kernel says of itself."""
        self._poison = (self._poison + 0x35) & 0xFF
        kernels: dict[str, Callable[[Case, Operands, int], tuple[Codes, dict[str, Any]]]] = {
            "mma": self._instruction, "wgmma": self._instruction, "sparse": self._sparse,
            "gemv": self._gemv, "attention": self._attention, "unary": self._unary,
            "cast": self._cast, "gemm": self._triton, "sweep_unary": self._sweep,
            "sweep_cast": self._sweep,
        }  # fmt: skip
        return kernels.get(case.kernel, self._library)(case, given, turn)

    # --- kernels of our own

    def _instruction(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        name = f"{case.kernel}_{case.a}_{case.out}"
        source = "wgmma.cu" if case.kernel == "wgmma" else "instructions.cu"
        out = self._output(case)
        threads = INSTRUCTION_THREADS[case.kernel]
        ins = [self._put(given[key]) for key in ("a", "b", "c")]
        numbers = (np.int32(case.batch), np.int32(turn))
        self._launch(source, name, case.batch, threads, *ins, out, *numbers)
        return self._got(case, out), {}

    def _sparse(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        """The layout of the metadata is that which gives exact results on order-free operands."""
        from .metadata import LAYOUTS

        if case.values == "integers":
            exact = exact_outputs(case, given)
            for layout in LAYOUTS:
                out = self._sparse_with(layout, case, given, turn)
                if (out == exact).all():
                    self._layouts[case.arithmetic, case.a] = layout
                    break
        layout = self._layouts.get((case.arithmetic, case.a), next(iter(LAYOUTS)))
        return self._sparse_with(layout, case, given, turn), {"metadata": layout}

    def _sparse_with(self, layout: str, case: Case, given: Operands, turn: int) -> Codes:
        from .metadata import metadata

        out = self._output(case)
        pairs, group = given["pairs"], case.arithmetic == "wgmma"
        words = metadata(layout, pairs.reshape(-1, ROWS_OF_A_WARP, *pairs.shape[-2:]))
        ins = [self._put(x) for x in (given["a"], given["b"], words, given["c"])]
        source = "wgmma.cu" if group else "instructions.cu"
        name = f"{'wgmma_' if group else ''}sparse_{case.a}_{case.out}"
        numbers = (np.int32(case.batch), np.int32(turn))
        threads = INSTRUCTION_THREADS[case.arithmetic]
        self._launch(source, name, case.batch, threads, *ins, out, *numbers)
        return self._got(case, out)

    def _gemv(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        out = self._output(case)
        ins = [self._put(given[key]) for key in ("a", "b")]
        numbers = (np.int32(case.k), np.int32(case.m), np.int32(turn))
        self._launch("vector.cu", f"gemv_{case.a}", case.m, 32, *ins, out, *numbers)
        return self._got(case, out), {}

    def _attention(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        out, blocks = self._output(case), case.m // 16
        ins = [self._put(given[key]) for key in ("q", "k", "v")]
        factor = np.float32(SCALE * LOG2_E)
        numbers = (factor, np.int32(case.k), np.int32(blocks), np.int32(turn))
        self._launch("attention.cu", "attention_fp16", blocks, 32, *ins, out, *numbers)
        return self._got(case, out), {}

    def _unary(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        start, count = (int(x) for x in given["words"])
        found = self._function(case.values, start, count, SIMT_BLOCKS + turn)
        _near(case.values, start, found)
        return found, {}

    def _function(self, name: str, start: int, count: int, blocks: int = SIMT_BLOCKS) -> Codes:
        out = self._poisoned(4 * count)
        numbers = np.uint32(start), out, np.uint32(count)
        self._launch("vector.cu", f"unary_{name}", blocks, SIMT_THREADS, *numbers)
        return np.asarray(out.cpu().numpy().view("<u4"))

    def _cast(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        return self._narrowed(case.out, given["words"], SIMT_BLOCKS + turn), {}

    def _narrowed(self, fmt: str, words: Codes, blocks: int = SIMT_BLOCKS) -> Codes:
        """fp32 words in another format."""
        kind, count = dtype_of(fmt), np.uint32(len(words))
        ins, out = self._put(words), self._poisoned(len(words) * kind.itemsize)
        self._launch("vector.cu", f"cast_{CASTS[fmt]}", blocks, SIMT_THREADS, ins, out, count)
        return np.asarray(out.cpu().numpy().view(kind))

    def _sweep(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        """Digests of blocks; the first words of one are those of the plain kernel's results."""
        few = replace(case, k=min(case.k, FEW))
        block = ONE // sweeps.stride(case)
        words = sweeps.block_words(few, block)
        if case.kernel == "sweep_cast":
            plain = self._narrowed(case.out, words)
        else:
            plain = self._function(case.values, int(words[0]), len(words))
        if sweeps.digest_of(words, plain) != int(self._digests(few, turn)[block]):
            raise RuntimeError(f"{case.name}: digests are not of {case.values}")
        return self._digests(case, turn), {}

    def _digests(self, case: Case, turn: int) -> Codes:
        out = self._poisoned(8 * case.m * SIMT_THREADS)
        numbers = (np.uint32(case.k), np.uint32(sweeps.stride(case)), np.int32(case.m))
        name = f"sweep_{case.values}"
        self._launch("sweep.cu", name, case.m, SIMT_THREADS, out, *numbers, np.int32(turn))
        sums = out.cpu().numpy().view("<u8").reshape(case.m, SIMT_THREADS)
        return np.asarray(sums.sum(axis=1, dtype=np.uint64))

    def _triton(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        from .triton_kernels import product

        a, b = self._put(given["a"]), self._put(given["b"])
        out = self._output(case)
        said = product(case, a, b, out, turn)
        return self._got(case, out), said

    def _library(self, case: Case, given: Operands, turn: int) -> tuple[Codes, dict[str, Any]]:
        from . import libraries

        out, said = libraries.run(self._torch, case, given, self._put)
        self._torch.cuda.synchronize()
        plain = out.contiguous().view(self._torch.uint8).cpu().numpy()
        return plain.reshape(-1).view(output_dtype(case)).reshape(output_shape(case)), said

    # --- moving and launching

    def _put(self, values: Codes) -> Any:
        """Bytes on the GPU."""
        plain = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return self._torch.from_numpy(plain.copy()).to("cuda")

    def _poisoned(self, nbytes: int) -> Any:
        torch = self._torch
        return torch.full((nbytes,), self._poison, dtype=torch.uint8, device="cuda")

    def _output(self, case: Case) -> Any:
        count = int(np.prod(output_shape(case)))
        return self._poisoned(count * output_dtype(case).itemsize)

    def _got(self, case: Case, out: Any) -> Codes:
        self._torch.cuda.synchronize()
        return np.asarray(out.cpu().numpy().view(output_dtype(case)).reshape(output_shape(case)))

    def _launch(self, source: str, name: str, blocks: int, threads: int, *given: Any) -> None:
        """Run a kernel on torch's stream; ``given`` are tensors and numpy numbers."""
        if source not in self._modules:
            self._modules[source] = Module(source, self.capability, self._build)
        self._modules[source].launch(name, blocks, threads, *given)
        self._torch.cuda.synchronize()


class Module:
    """A compiled source, loaded."""

    def __init__(self, source: str, capability: str, folder: Path) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._cubin = nvcc.compile_source(source, capability, folder)
        self._image = self._cubin.read_bytes()
        self._handle = ctypes.c_void_p()
        self._check(self._driver.cuModuleLoadData(ctypes.byref(self._handle), self._image), source)

    @cached_property
    def about(self) -> dict[str, Any]:
        """The digest of the machine code, and its matrix instructions."""
        found = nvcc.opcodes(self._cubin)
        return {
            "sha256": hashlib.sha256(self._image).hexdigest(),
            "opcodes": found or "no disassembler on this machine",
        }

    def launch(self, name: str, blocks: int, threads: int, *given: Any) -> None:
        """Put a kernel on the default stream."""
        function = ctypes.c_void_p()
        found = self._driver.cuModuleGetFunction(
            ctypes.byref(function), self._handle, name.encode()
        )
        self._check(found, name)
        held = [_argument(one) for one in given]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
        ones = (ctypes.c_uint(blocks), ctypes.c_uint(1), ctypes.c_uint(1))
        block = (ctypes.c_uint(threads), ctypes.c_uint(1), ctypes.c_uint(1))
        code = self._driver.cuLaunchKernel(
            function, *ones, *block, ctypes.c_uint(0), ctypes.c_void_p(0), pointers, None
        )
        self._check(code, name)

    def _check(self, code: int, what: str) -> None:
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            said = text.value.decode() if text.value else "no words for it"
            raise RuntimeError(f"CUDA error {code} at {what}: {said}")


def _argument(given: Any) -> Any:
    """A kernel's argument as the driver takes it."""
    if isinstance(given, np.float32):
        return ctypes.c_float(float(given))
    if isinstance(given, np.uint32):
        return ctypes.c_uint32(int(given))
    if isinstance(given, np.int32):
        return ctypes.c_int32(int(given))
    return ctypes.c_void_p(given.data_ptr())


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "ex2": np.exp2, "rcp": lambda x: 1 / x, "rsqrt": lambda x: 1 / np.sqrt(x), "lg2": np.log2,
    "tanh": np.tanh,
}  # fmt: skip
NEAR = 2.0**-10
"""tanh.approx is good to 2^-11; what is further off is another function."""


def _near(name: str, start: int, found: Codes) -> None:
    """Refuse a table of another function than it is called by."""
    some = np.arange(0, len(found), 4099)
    x = (np.uint32(start) + some.astype(np.uint32)).view(np.float32).astype(np.float64)
    right, got = FUNCTIONS[name](x), found[some].view(np.float32).astype(np.float64)
    off = np.abs(got - right) / np.maximum(np.abs(right), 2.0**-6)
    if not (off < NEAR).all():
        raise RuntimeError(f"{name} is off by {off.max():.2g} of its value")
