"""The compiler switch: lazy, cached where the user can find it, and possible to turn off."""

import os
import subprocess
import sys

import numpy as np

from accelsim import _jit


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
    _jit.prefetch(column, 10**6)
    return column.sum()
