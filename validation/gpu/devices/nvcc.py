"""Compiling the CUDA sources, and what the machine code says of itself. Needs no GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from accelsim.errors import AccelsimError

KERNELS = Path(__file__).resolve().parent / "kernels"
FLAGS = ("-cubin", "-O3", "-std=c++17", "--fmad=false")
NEEDS_WARP_GROUPS = ("wgmma.cu",)
TENSOR_OPCODES = r"\b((?:H|I|Q|D)(?:G?)MMA|MUFU|FFMA)((?:\.[A-Z0-9x]+)*)"


def find_nvcc() -> str:
    """The compiler's path, "" if there is none."""
    places = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [Path(place) / "bin" / "nvcc" for place in (*places, "/usr/local/cuda") if place]
    found = shutil.which("nvcc")
    return found or next((str(one) for one in candidates if one.is_file()), "")


def targets(capability: str) -> list[str]:
    """The compiler's options for a GPU; warp-group instructions need their own architecture."""
    major, minor = capability.split(".")
    number = f"{major}{minor}" + ("a" if int(major) >= 9 else "")
    return ["-gencode", f"arch=compute_{number},code=sm_{number}"]


def compile_source(source: str, capability: str, folder: Path) -> Path:
    """The machine code of a source for a GPU; raises AccelsimError with the compiler's words."""
    nvcc = find_nvcc()
    if not nvcc:
        raise AccelsimError("nvcc was not found: neither on the PATH nor in CUDA_HOME")
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{Path(source).stem}.cubin"
    command = [nvcc, *FLAGS, *targets(capability), "-o", str(output), str(KERNELS / source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise AccelsimError(f"nvcc does not compile {source}: {done.stderr.strip()[-600:]}")
    return output


def opcodes(cubin: Path) -> dict[str, int]:
    """Matrix and special-function instructions of machine code and how often they occur.

    Empty where no disassembler is found: the manifest says so.
    """
    found = re.findall(TENSOR_OPCODES, disassembled(cubin))
    return dict(sorted(Counter(word + rest for word, rest in found).items()))


def disassembled(cubin: Path) -> str:
    """SASS of machine code, "" where no disassembler is found."""
    for tool in _disassemblers():
        folder = str(Path(tool).parent)
        path = os.pathsep.join([folder, os.environ.get("PATH", "")])
        done = subprocess.run(
            [tool, "-sass", str(cubin)], capture_output=True, text=True, timeout=120,
            env={**os.environ, "PATH": path},
        )  # fmt: skip
        if done.returncode == 0 and done.stdout:
            return done.stdout
    return ""


def _disassemblers() -> Sequence[str]:
    """cuobjdump beside nvcc, on the PATH, and in triton's package, which has nvdisasm, too."""
    found = [shutil.which("cuobjdump") or ""]
    if find_nvcc():
        found.append(str(Path(find_nvcc()).parent / "cuobjdump"))
    spec = find_spec("triton")
    if spec is not None and spec.origin:
        found.append(str(Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"))
    return [one for one in found if one and Path(one).is_file()]
