"""CPU time of one GEMM in SCALE-Sim 3.0.0 and in accelsim, measured in the same run.

    python tests/bench/compare_scalesim.py VENV

VENV is made on first use with ``scalesim==3.0.0`` and ``numpy<2`` (it does not run on newer numpy).
The GEMM is m=128, n=768, k=768 on a 128x128 weight-stationary array, ideal memory.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """[general]
run_name = bench
[architecture_presets]
ArrayHeight: 128
ArrayWidth: 128
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth : 10
Dataflow : ws
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
DRIVER = """
import time
from scalesim.scale_sim import scalesim
sim = scalesim(save_disk_space=True, verbose=False, config="bench.cfg", topology="bench.csv",
               layout="layout.csv", input_type_gemm=True)
began = time.process_time()
sim.run_scale(top_path="out")
print("CPU_SECONDS", time.process_time() - began)
"""


def scalesim_seconds(venv: Path) -> float:
    """CPU seconds of SCALE-Sim's own run, its imports not counted."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        packages = ["scalesim==3.0.0", "numpy<2"]
        subprocess.run([venv / "bin" / "pip", "install", "-q", *packages], check=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "bench.cfg").write_text(CONFIG)
        (root / "bench.csv").write_text("Layer, M, N, K,\nproj, 128, 768, 768,\n")
        columns = ", ".join(f"c{i}" for i in range(20))
        (root / "layout.csv").write_text(f"Layer, {columns},\nproj, {', '.join(['1'] * 20)},\n")
        (root / "driver.py").write_text(DRIVER)
        done = subprocess.run(
            [python.absolute(), "driver.py"], cwd=root, capture_output=True, text=True, check=False
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("CPU_SECONDS")]
    if not lines:
        sys.exit(f"SCALE-Sim did not finish: {done.stderr[-400:]}")
    return float(lines[0].split()[1])


def accelsim_seconds() -> float:
    """CPU seconds of one simulation in a warm process, tile choice included."""
    from accelsim.api import simulate
    from accelsim.mapping.tiling import promising_tilings

    settings: dict[str, object] = {
        "array.rows": 128, "array.cols": 128, "array.dataflow": "ws", "array.pipelined": False
    }  # fmt: skip
    times = []
    for _ in range(30):
        promising_tilings.cache_clear()
        began = time.process_time()
        result = simulate("systolic", "gemm:m=128,n=768,k=768", memory="ideal", overrides=settings)
        times.append(time.process_time() - began)
    assert result.cycles == 18360
    return sorted(times)[len(times) // 2]


def command_seconds() -> float:
    """CPU seconds of the whole command line call, start-up included."""
    command = [
        Path(sys.executable).parent / "accelsim", "run", "systolic", "gemm:m=128,n=768,k=768",
        "--memory", "ideal", "--set", "array.rows=128", "--set", "array.cols=128",
        "--set", "array.pipelined=false", "--json", "-",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    theirs = scalesim_seconds(Path(sys.argv[1]))
    ours, whole = accelsim_seconds(), command_seconds()
    print(f"SCALE-Sim 3.0.0        {theirs:8.3f} s CPU")
    print(f"accelsim, warm process {ours * 1e3:8.3f} ms CPU   {theirs / ours:,.0f} times less")
    print(f"accelsim, whole call   {whole:8.3f} s CPU   {theirs / whole:,.1f} times less")
