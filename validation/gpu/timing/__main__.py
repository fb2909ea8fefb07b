"""Times the latency grid on the GPU of this machine.

    python -m accelsim.validation.gpu.timing --out DIR

Exit 0: all rows are there. Exit 3: the time was up; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from accelsim.errors import AccelsimError

from ..provenance import Nvml, commit, gpu_identity, source_digests
from . import effort
from .grid import Row, digest, grid
from .method import SAMPLE_SECONDS, Device
from .record import Record
from .session import run, stretches

UNFINISHED, WRONG = 3, 2
DEFAULT_SECONDS = 300.0
HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    rows = grid()
    if asked.dry_run:
        print(plan(rows))
        return 0
    try:
        if not asked.seconds >= 0:
            raise AccelsimError(f"--seconds is {asked.seconds:g}; accepted: 0 or more")
        device, folder = _device(asked.rehearse), Path(asked.out)
        record = Record.at(folder, identity(device, rows), about())
        state = Nvml("" if asked.rehearse else gpu_identity())
        done = run(device, state, rows, record, _say, asked.seconds)
    except (AccelsimError, OSError) as fault:
        print(f"accelsim: error: {fault}", file=sys.stderr)
        return WRONG
    timed = min(len(record.finished), len(stretches(rows)))
    _say(f"{timed} of {len(stretches(rows))} stretches are in {folder}")
    return 0 if done else UNFINISHED


def plan(rows: Sequence[Row]) -> str:
    """What would be timed, and an estimate of seconds and bytes."""
    counts = Counter((row.case.block, row.cache, row.case.split) for row in rows)
    lines = [f"{'block':<24}{'cold':>6}{'warm':>6}{'fit':>6}{'test':>6}"]
    for block in dict.fromkeys(row.case.block for row in rows):
        mine = {key[1:]: count for key, count in counts.items() if key[0] == block}
        sums = [sum(n for key, n in mine.items() if word in key) for word in ("cold", "warm")]
        sums += [sum(n for key, n in mine.items() if word in key) for word in ("fit", "test")]
        lines.append(f"{block:<24}" + "".join(f"{one:>6}" for one in sums))
    size = effort.recorded_bytes(rows, SAMPLE_SECONDS) / 1e6
    lines.append(
        f"{len(rows)} rows in {len(stretches(rows))} stretches: about "
        f"{effort.seconds(rows):.0f} s on a GPU, {size:.2f} MB"
    )
    return "\n".join(lines)


def identity(device: Device, rows: tuple[Row, ...]) -> dict[str, object]:
    """What has to stay the same while a record grows."""
    sources = {**source_digests(HERE)}
    return {"machine": device.provenance(), "grid": digest(rows), "sources": sources}


def about() -> dict[str, object]:
    """When and from which sources a record was begun."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"begun": now, "commit": commit()}


def _device(rehearse: bool) -> Device:
    if rehearse:
        from .rehearsal import Rehearsal

        return Rehearsal()
    from .cuda import CudaDevice

    return CudaDevice()


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m accelsim.validation.gpu.timing",
        description="Times the latency grid on the GPU of this machine, whose clocks stay as set.",
    )
    parser.add_argument("--out", default="timing", help="folder of the record (default: timing)")
    parser.add_argument("--dry-run", action="store_true", help="show the grid; needs no GPU")
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        help="begin no stretch that would end later",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="small sizes on the processor; no evidence"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
