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
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from accelsim._version import __version__

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_lean = False
_lowerings: list[Any] = []  # the compiled forms of prefetch and fma, taught to numba once


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


def _compile(function: Callable[P, R_co], **options: Any) -> Kernel[P, R_co]:
    if "numba" not in sys.modules:
        os.environ["NUMBA_CACHE_DIR"] = str(_writable(_wanted_cache()))
        if _lean:
            _import_numba_without_blas()
    import numba

    if not _lowerings:
        _lowerings.extend((_teach_prefetch(), _teach_fma()))
    decorate = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=False, **options)
    kernel = cast(Any, decorate(function))
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


def prefetch(column: Any, index: int) -> None:
    """Ask the host's cache for ``column[index]``: a hint, legal past the end, no effect uncompiled.

    Only for one-dimensional contiguous columns.
    """


def fma(x: Any, y: Any, z: Any) -> Any:
    """x y + z rounded once, of three fp32 or three float64: one instruction of the host, compiled.

    numba never contracts x * y + z to it by itself. Uncompiled it is exact, too, and slow.
    """
    from fractions import Fraction

    import numpy as np

    kind = type(z)
    with np.errstate(all="ignore"):
        if not np.isfinite(x) or not np.isfinite(y) or not np.isfinite(z):
            return kind(float(x) * float(y) + float(z))
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        if exact == 0:
            return kind(x * y + z)  # the sign of zero is that of the unfused sum
        return kind(_to_odd(exact)) if kind is np.float32 else kind(_nearest(exact))


def _nearest(exact: Any) -> float:
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _to_odd(exact: Any) -> float:
    """A float64 that rounds to fp32 as ``exact`` does: inexact ones get an odd last bit.

    Innocuous because 53 >= 24 + 2 (Boldo and Melquiond, IEEE Trans. Computers 57(4), 2008).
    """
    import math
    from fractions import Fraction

    value = _nearest(exact)
    if math.isinf(value) or Fraction(value) == exact or _is_odd(value):
        return value
    return math.nextafter(value, math.inf if exact > Fraction(value) else -math.inf)


def _is_odd(value: float) -> bool:
    import struct

    return bool(struct.unpack("<q", struct.pack("<d", value))[0] & 1)


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


def _wanted_cache() -> Path:
    """Where compiled kernels belong: the user's folder, in it one per state of their sources."""
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or _user_cache())
    state = _state_of_sources()
    return base if base.name == state else base / state


def _state_of_sources() -> str:
    """A short digest that changes with any file of kernels, or of constants frozen into them."""
    root = Path(__file__).parent
    files = [
        *root.glob("**/*kernels.py"),
        *(root / "hw/dram" / f for f in ("state.py", "mapping.py")),
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


def _teach_prefetch() -> Any:
    """Register the machine instruction behind ``prefetch`` (LLVM LangRef, llvm.prefetch)."""
    from numba.core import types
    from numba.extending import intrinsic, overload

    ir: Any = import_module("llvmlite.ir")  # untyped; comes with numba

    def lowered(_context: Any, column: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            byte, word = ir.IntType(8), ir.IntType(32)
            address = builder.bitcast(builder.gep(array.data, [args[1]]), byte.as_pointer())
            form = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
            function = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), form)
            # read, keep in all cache levels, data cache
            builder.call(function, [address, word(0), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(column, types.intp), codegen

    hint: Any = intrinsic(lowered)

    def compiled(column: Any, index: Any) -> Any:
        def touch(column: Any, index: Any) -> None:
            hint(column, index)

        return touch

    return overload(prefetch, inline="never")(compiled)


def _teach_fma() -> Any:
    """Register the machine instruction behind ``fma`` (LLVM LangRef, llvm.fma)."""
    from numba.core import types
    from numba.extending import intrinsic, overload

    def lowered(_context: Any, x: Any, y: Any, z: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.fma(*args)

        return (z(x, y, z), codegen) if x == y == z and isinstance(z, types.Float) else None

    fused: Any = intrinsic(lowered)

    def compiled(x: Any, y: Any, z: Any) -> Any:
        def once(x: Any, y: Any, z: Any) -> Any:
            return fused(x, y, z)

        return once

    return overload(fma, inline="never")(compiled)
