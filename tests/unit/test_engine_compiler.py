"""The compiler switch: lazy, cached where the user can find it, and possible to turn off."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from strict_kernels import strict

from accelsim import _intrinsics, _jit


def python(code, **environment):
    """Run code in a fresh interpreter; returns what it printed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_engine_does_not_load_the_compiler():
    assert python("import sys, accelsim.engine; print({'numba', 'simpy'} & set(sys.modules))") == [
        "set()"
    ]


def test_kernels_are_cached_in_the_users_cache_folder(tmp_path):
    code = (
        "from accelsim import _jit, engine; print(_jit.kernels_are_cached()); engine.warm_up();"
        "print(_jit.kernels_are_cached(), _jit.kernels_are_cached('engine', 'no_such_room'))"
    )
    assert python(code, XDG_CACHE_HOME=str(tmp_path))[1:] == ["True", "False"]
    assert list(tmp_path.glob("accelsim/*/kernels/*/engine_*/*merge_heads*.nbi"))


def test_users_own_cache_folder_is_respected(tmp_path):
    python("from accelsim import engine; engine.warm_up()", NUMBA_CACHE_DIR=str(tmp_path))
    assert list(tmp_path.glob("*/engine_*/*merge_heads*.nbi"))


def test_kernels_are_cached_there_whoever_imported_numba_first(tmp_path):
    code = (
        "import numba; before = numba.config.CACHE_DIR; from accelsim import engine;"
        "engine.warm_up(); print(numba.config.CACHE_DIR == before)"
    )
    assert python(code, XDG_CACHE_HOME=str(tmp_path)) == ["True"]
    assert list(tmp_path.glob("accelsim/*/kernels/*/engine_*/*merge_heads*.nbi"))


def test_unwritable_cache_folder_falls_back_to_a_private_one(tmp_path, monkeypatch):
    monkeypatch.setattr(_jit.tempfile, "gettempdir", lambda: str(tmp_path))
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    folder = _jit._writable(occupied / "cache")
    assert folder.parent == tmp_path
    assert os.access(folder, os.W_OK)


def test_cache_folder_of_somebody_else_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(_jit.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "file").write_text("")
    mine = os.getuid()
    monkeypatch.setattr(_jit.os, "getuid", lambda: mine + 1)
    planted = tmp_path / f"accelsim-{mine + 1}"
    planted.mkdir()
    assert _jit._writable(tmp_path / "file" / "cache") != planted


def test_compiler_can_be_turned_off():
    code = (
        "from accelsim import _jit, engine; from accelsim.engine import kernels; engine.warm_up();"
        "print(_jit.kernels_are_cached(), kernels.merge_heads.py_func is kernels.merge_heads)"
    )
    assert python(code, NUMBA_DISABLE_JIT="1") == ["True", "True"]


def test_prefetch_is_a_hint_without_effect():
    column = np.arange(4)
    touch = _jit.njit(_touch)
    assert touch(column) == touch.py_func(column) == 6
    assert column.tolist() == [0, 1, 2, 3]


def _touch(column):
    _intrinsics.prefetch(column, 10**6)
    return column.sum()


COMMANDS = (
    "run hbm-npu gemm:m=64,k=64,n=64 --memory dram",
    "run a100 gemm:m=256,k=64,n=128",
    "run mesh-npu gemm:m=100,n=70,k=90",
    "check quad-npu attention:heads=2,kv_heads=1,q=8,kv=8,d=8",
    "check stream-sdpa attention:heads=2,kv_heads=1,q=4,kv=8,d=4",
    "memory hbm2 --stream mix21_rand --requests 200 --channels 2 --check",
    "memory ddr4-2400 --stream seq_read --requests 200 --check",
)


def test_kernels_never_count_from_the_end_of_an_array():
    """For compiled ones index as C does."""
    command = [sys.executable, str(Path(__file__).with_name("strict_kernels.py")), *COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_strict_arrays_refuse_what_counts_from_the_end():
    table = strict((np.arange(6).reshape(2, 3),))[0]
    assert table[1][2] == 5
    with pytest.raises(IndexError, match="counts from the end"):
        table[1][-1] = 0


def test_kernels_of_others_still_count_from_the_end():
    code = (
        "import numba, numpy; from accelsim import engine; engine.warm_up()\n"
        "print(numba.njit(lambda a: a[-1])(numpy.arange(5)))"
    )
    assert python(code) == ["4"]
