"""The CUDA sources of the reference kernels built for this CPU, and a device that runs them.

g++ expands the macros; inline assembly becomes calls of ``assembly`` (emulated.h); every kernel
gets a C entry. ``HostDevice`` is the CUDA device with only the launch and the memory exchanged, so
that names, argument orders, shapes and layouts of the real one are what is tested.
"""

import ctypes
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
from accelsim.validation.gpu.devices import cuda

HERE = Path(__file__).resolve().parent
KERNELS = Path(cuda.__file__).resolve().parent / "kernels"
STUBS = ("cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h")
ALONE = ("unary_", "cast_", "sweep_")
"""Kernels whose threads never meet."""


PROBE = "#include <barrier>\n_Float16 half(float x) { return (_Float16)x; }\n"


@cache
def compiler():
    """The path of a g++ that has C++20 and halves, None if there is none."""
    found = shutil.which("g++")
    words = [found, "-std=c++20", "-x", "c++", "-fsyntax-only", "-"]
    if found and subprocess.run(words, input=PROBE, capture_output=True, text=True).returncode:
        return None
    return found


def build(source, folder):
    """A shared library of one source; its kernels are called as ``run_NAME``."""
    folder.mkdir(exist_ok=True)
    for stub in STUBS:
        (folder / stub).write_text('#include "halves.h"\n')
    text = '#include "emulated.h"\n' + (KERNELS / source).read_text()
    unit = folder / f"{Path(source).stem}.cpp"
    unit.write_text(text)
    flags = ["-std=c++20", "-w", f"-I{folder}", f"-I{HERE}", f"-I{KERNELS}"]
    done = subprocess.run(
        ["g++", *flags, "-E", "-P", str(unit)], capture_output=True, text=True, check=True
    )
    expanded = _with_entries(_assembly_replaced(done.stdout))
    unit.write_text(expanded)
    library = folder / f"{Path(source).stem}.so"
    options = ["-O1", "-ffp-contract=off", "-fpermissive", "-shared", "-fPIC", "-pthread"]
    made = subprocess.run(
        ["g++", *flags, *options, "-o", str(library), str(unit)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[:3000]
    return ctypes.CDLL(str(library))


def _assembly_replaced(text):
    return re.sub(r"asm volatile\((.*?)\);", lambda m: _call(m[1]), text, flags=re.S)


def _call(inside):
    inside = re.sub(r'"\s+"', "", inside)  # literals side by side are one
    pieces = re.split(r":(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", inside)
    pieces += [""] * (3 - len(pieces))
    words = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', pieces[0]))
    outs = re.findall(r'"[=+]\w"\(((?:[^()]|\([^()]*\))*)\)', pieces[1])
    ins = re.findall(r'"\w"\(((?:[^()]|\([^()]*\))*)\)', pieces[2])
    given = ", ".join(f"Out{{&({one})}}" for one in outs)
    taken = ", ".join(f"in({one})" for one in ins)
    return f'assembly("{words}", {{{given}}}, {{{taken}}});'


def _with_entries(text):
    """A C function for each kernel that runs all its blocks."""
    entries = []
    for name, parameters in re.findall(r'extern "C" KERNEL_ENTRY void\s+(\w+)\(([^)]*)\)', text):
        names = [re.split(r"[\s*]+", one.strip())[-1] for one in parameters.split(",")]
        alone = str(name.startswith(ALONE)).lower()
        entries.append(
            f'extern "C" void run_{name}(int grid_, int block_, {parameters}) {{'
            f" run(grid_, block_, {alone}, [&] {{ {name}({', '.join(names)}); }}); }}"
        )
    return text.replace("KERNEL_ENTRY", "") + "\n" + "\n".join(entries)


class Tensor:
    """Bytes where the kernels find them."""

    def __init__(self, values):
        self.values = values

    def to(self, _):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.values

    def data_ptr(self):
        return self.values.ctypes.data


class Torch:
    """What the device asks of torch."""

    uint8 = np.uint8

    class cuda:  # noqa: N801
        @staticmethod
        def synchronize():
            pass

    @staticmethod
    def from_numpy(values):
        return Tensor(values)

    @staticmethod
    def full(shape, value, dtype, device):
        return Tensor(np.full(shape, value, dtype))


class HostDevice(cuda.CudaDevice):
    """The CUDA device, its launches on this CPU."""

    def __init__(self, folder):
        self._torch, self._poison, self._layouts = Torch, 0, {}
        self._folder, self._libraries = folder, {}
        self.capability = "9.0"

    def machine(self):
        from accelsim.validation.gpu.devices import fake

        return fake.machine()

    def refusal(self, kernel):
        return ""

    def built(self, sources):
        return {}

    def _launch(self, source, name, blocks, threads, *given):
        if source not in self._libraries:
            self._libraries[source] = build(source, self._folder)
        arguments = [cuda._argument(one) for one in given]
        getattr(self._libraries[source], f"run_{name}")(blocks, threads, *arguments)
