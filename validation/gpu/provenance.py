"""Where numbers come from: GPU, driver, libraries, sources; clocks and power while they arose."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).resolve().parent


def source_digests(folder: Path = HERE) -> dict[str, str]:
    """sha256 of every source that can change what is recorded, by file name."""
    files = sorted(folder.rglob("*"))
    return {
        str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in files
        if one.is_file() and one.suffix in (".py", ".cu", ".cuh")
    }


def commit() -> str:
    """The commit of the checkout that this runs in, "+" if files differ from it; "" if none."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ("git", "-C", str(HERE), *words), capture_output=True, text=True, timeout=20
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "HEAD")
        return found + ("+" if found and git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def machine() -> dict[str, Any]:
    """The GPU, its driver and the libraries as torch sees them. Needs torch and a CUDA GPU."""
    import numpy
    import torch
    import triton

    properties, identity = torch.cuda.get_device_properties(0), gpu_identity()
    return {
        "kind": "cuda",
        "name": properties.name,
        "id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": getattr(properties, "L2_cache_size", 0),
        "memory_bytes": properties.total_memory,
        "driver": Nvml(identity).driver(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": str(torch.__version__),
        "triton": str(triton.__version__),
        "cudnn": torch.backends.cudnn.version(),
        "cusparselt": _cusparselt(torch),
    }


def gpu_identity() -> str:
    """The first GPU that torch sees, as CUDA names it; "" where this torch does not tell."""
    import torch

    return str(getattr(torch.cuda.get_device_properties(0), "uuid", ""))


def _cusparselt(torch: Any) -> int:
    try:
        return int(torch.backends.cusparselt.version() or 0)
    except (AttributeError, RuntimeError, TypeError):
        return 0


@dataclass(frozen=True)
class Sample:
    """The state of a GPU at one moment; nan where it does not say."""

    second: float
    sm_mhz: float
    memory_mhz: float
    watts: float
    celsius: float
    throttle_reasons: int

    def row(self) -> dict[str, float]:
        """Its fields by name."""
        return asdict(self)


class Reads(Protocol):
    """Something whose clocks and power can be read."""

    def sample(self) -> Sample:
        """Its state now."""


class Nvml:
    """NVIDIA's management library, read only: no clock, limit or mode is ever set.

    It is told which GPU by the identity that CUDA knows it by, since the two may number several
    GPUs differently; without one, or where it is unknown, it is the first. Where the library is
    missing, every reading is nan.
    """

    _SM, _MEMORY = 1, 2

    def __init__(self, identity: str = "", library: str = "libnvidia-ml.so.1") -> None:
        self._library: Any = None
        self._device = ctypes.c_void_p()
        try:
            found = ctypes.CDLL(library)
            ready = found.nvmlInit_v2() == 0 and self._found(found, identity)
        except (OSError, AttributeError):
            return
        self._library = found if ready else None

    def _found(self, library: Any, identity: str) -> bool:
        device = ctypes.byref(self._device)
        name = f"GPU-{identity.removeprefix('GPU-')}".encode()
        if identity and library.nvmlDeviceGetHandleByUUID(name, device) == 0:
            return True
        return bool(library.nvmlDeviceGetHandleByIndex_v2(0, device) == 0)

    def driver(self) -> str:
        """The driver's version, "" if unknown."""
        text = ctypes.create_string_buffer(96)
        if self._library is None or self._library.nvmlSystemGetDriverVersion(text, 96):
            return ""
        return text.value.decode()

    def sample(self) -> Sample:
        reasons = ctypes.c_ulonglong()
        ask = getattr(self._library, "nvmlDeviceGetCurrentClocksThrottleReasons", None)
        if ask is not None:
            ask(self._device, ctypes.byref(reasons))
        return Sample(
            second=time.time(),
            sm_mhz=self._read("nvmlDeviceGetClockInfo", self._SM),
            memory_mhz=self._read("nvmlDeviceGetClockInfo", self._MEMORY),
            watts=self._read("nvmlDeviceGetPowerUsage") / 1000,
            celsius=self._read("nvmlDeviceGetTemperature", 0),
            throttle_reasons=reasons.value,
        )

    def _read(self, function: str, *given: int) -> float:
        value = ctypes.c_uint()
        ask = getattr(self._library, function, None)
        if ask is None or ask(self._device, *given, ctypes.byref(value)):
            return float("nan")
        return float(value.value)


class Logger:
    """Samples a GPU in the background while its context is open."""

    def __init__(self, source: Reads, interval: float = 0.2) -> None:
        self.samples: list[Sample] = []
        self._source, self._interval = source, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Logger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.samples.append(self._source.sample())
            if self._stop.wait(self._interval):
                return

    def summary(self) -> dict[str, Any]:
        """Least, mean and greatest of each reading, and all throttle reasons that occurred."""
        found: dict[str, Any] = {"samples": len(self.samples)}
        for name in ("sm_mhz", "memory_mhz", "watts", "celsius"):
            values = [v for v in (getattr(one, name) for one in self.samples) if v == v]
            if values:
                mean = round(sum(values) / len(values), 3)
                found[name] = [min(values), mean, max(values)]
        reasons = 0
        for one in self.samples:
            reasons |= one.throttle_reasons
        found["throttle_reasons"] = reasons
        return found
