"""The compiler of the hot loops: numba defaults, cache folder and typing, all in one place.

Kernels live in ``<room>/kernels.py`` and are imported inside the function that needs them, so that
``import accelsim`` never loads numba. numba's cache sees no change in the other files that a kernel
inlines, so the folder of the cache is named after the state of all of them.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from accelsim import _intrinsics as intrinsics
from accelsim._version import __version__

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_lean = False
_taught: list[Any] = []  # what numba was taught, once per process


class Kernel(Protocol[P, R_co]):
    """A compiled loop; ``py_func`` is the same loop, uncompiled."""

    @property
    def py_func(self) -> Callable[P, R_co]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def njit(function: Callable[P, R_co]) -> Kernel[P, R_co]:
    """Compile a loop on its first call, cache it on disk, and release the GIL while it runs.

    ``NUMBA_DISABLE_JIT=1`` leaves the function as it is.
    """
    return _compile(function)


def njit_in_place(function: Callable[P, R_co]) -> Kernel[P, R_co]:
    """``njit`` for functions that only work on their caller's arrays: none made, none returned.

    They count no references and are inlined into their callers, since a tuple of many arrays is
    passed as dozens of arguments otherwise: DRAM channels run at twice the speed.
    """
    return _compile(function, _nrt=False, forceinline=True)


def njit_uncounted(function: Callable[P, R_co]) -> Kernel[P, R_co]:
    """``njit_in_place`` without the inlining: for what is large, or called from many places."""
    return _compile(function, _nrt=False)


def _compile(function: Callable[P, R_co], **options: Any) -> Kernel[P, R_co]:
    if "numba" not in sys.modules and _lean:
        _import_numba_without_blas()
    import numba

    if not _taught:
        _taught.extend(intrinsics.teach())
    decorate = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=False, **options)
    config: Any = numba.config
    theirs = config.CACHE_DIR  # whoever imported numba first
    config.CACHE_DIR = _cache()
    try:
        kernel = cast(Any, decorate(function))
    finally:
        config.CACHE_DIR = theirs
    if not hasattr(kernel, "py_func"):  # NUMBA_DISABLE_JIT
        kernel.py_func = function
    return cast(Kernel[P, R_co], kernel)


def stay_lean() -> None:
    """For processes that run nothing but accelsim: load numba without its BLAS (a third faster).

    Matrix products inside other people's kernels would not compile after that.
    """
    global _lean
    _lean = True


def _import_numba_without_blas() -> None:
    """numba looks for BLAS when its array functions are loaded, which imports much of scipy."""
    blas = "scipy.linalg.cython_blas"
    if blas in sys.modules:
        return
    sys.modules[blas] = cast(Any, None)  # makes the import fail at once
    try:
        import_module("numba.np.arraymath")
    finally:
        del sys.modules[blas]


def kernels_are_cached(*rooms: str) -> bool:
    """Whether earlier runs left compiled kernels of these rooms (default: engine) on disk.

    A cheap look at file names, for "compiling (first run only)" messages; it may be wrong after an
    edit or on another CPU, and nothing depends on it.
    """
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return True
    cache = _wanted_cache()
    source = Path(__file__).parent
    try:
        return all(
            any(cache.glob(f"{room}_*/*.nbi")) or any((source / room / "__pycache__").glob("*.nbi"))
            for room in rooms or ("engine",)
        )
    except OSError:  # a folder that this user may not enter
        return False


@cache
def _cache() -> str:
    """Where kernels are compiled to, made if it was not there."""
    return str(_writable(_wanted_cache()))


def _wanted_cache() -> Path:
    """Where compiled kernels belong: the user's folder, in it one per state of their sources."""
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or _user_cache())
    return base / _state_of_sources()


def _state_of_sources() -> str:
    """A short digest that changes with any file of kernels, or of constants frozen into them."""
    root = Path(__file__).parent
    files = [
        root / "_jit.py",
        root / "_intrinsics.py",
        *root.glob("**/*kernels.py"),
        *(root / f for f in ("hw/dram/state.py", "hw/dram/mapping.py", "hw/pim/channel/state.py")),
    ]
    stamps = sorted((str(f.relative_to(root)), *f.stat()[6:9:2]) for f in files if f.exists())
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "accelsim" / __version__ / "kernels"


def _writable(wanted: Path) -> Path:
    """The wanted folder, else a private one of this user under the temporary directory."""
    user = str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    private = Path(tempfile.gettempdir()) / f"accelsim-{user}"
    for folder, mode in ((wanted, 0o777), (private, 0o700)):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=mode)
        except OSError:
            continue
        # The cache holds code: a folder that someone else made in a shared place is not trusted.
        foreign = hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()
        if os.access(folder, os.W_OK) and not (folder is private and foreign):
            return folder
    return Path(tempfile.mkdtemp(prefix="accelsim-"))
