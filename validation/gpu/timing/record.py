"""The files of a run, stretch by stretch: what is finished stays, whatever happens later.

    latency.csv     a line for each row that was timed
    anchors.csv     the anchors of every attempt at a stretch
    skipped.csv     rows that this GPU does not have, and why
    kernels.csv     what a case ran: names of kernels, which tell their tiles, grids, shared memory
    state.csv       clocks, power and temperature, every fifth of a second
    manifest.json   the machine, the sources, the grid, the stretches that are finished, rows whose
                    kernel faulted, and of each file its length and sha256

Lines are appended and then the manifest is replaced, so lines behind the length in it belong to a
stretch that was not finished and are cut off. What does not match its digest, a manifest of another
version, of another grid or machine, or none at all is refused by name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError

SCHEMA = 1
MANIFEST = "manifest.json"
COLUMNS = {
    "latency.csv": (
        *("stretch", "block", "case", "cache", "split", "median_us", "p10_us", "p90_us"),
        *("eager_us", "launches", "sets", "drift", "sm_mhz", "watts"),
    ),
    "anchors.csv": (
        *("stretch", "attempt", "gemm_before_us", "gemm_after_us"),
        *("copy_before_us", "copy_after_us", "drift", "kept"),
    ),
    "skipped.csv": ("stretch", "case", "cache", "reason"),
    "kernels.csv": ("case", "kernels"),
    "state.csv": ("second", "sm_mhz", "memory_mhz", "watts", "celsius", "throttle_reasons"),
}

Lines = Mapping[str, Sequence[Mapping[str, object]]]


@dataclass
class Record:
    """A folder that rows are written to.

    ``identity`` says of what, and must stay the same; ``about`` is told of how it was begun.
    """

    folder: Path
    identity: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(
        cls, folder: Path, identity: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> Record:
        """A new record, or one that is there already and is continued."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists():
            record = cls(folder, identity, about or {})
            for file, columns in COLUMNS.items():
                (folder / file).write_text(",".join(columns) + "\n", encoding="utf-8")
            record._write_manifest()
            return record
        manifest = read_manifest(folder)
        changed = _differences(manifest["identity"], identity)
        if changed:
            raise AccelsimError(
                f"{folder / MANIFEST} is of another {', '.join(changed)}; accepted: an empty folder"
            )
        for file, entry in manifest["files"].items():
            _whole(folder, file, entry)
            os.truncate(folder / file, entry["bytes"])
        return cls(
            folder, identity, manifest["about"], list(manifest["finished"]),
            dict(manifest["faults"]),
        )  # fmt: skip

    def add(self, stretch: int, lines: Lines) -> None:
        """Append the lines of a finished stretch to their files."""
        for file, rows in lines.items():
            with (self.folder / file).open("a", encoding="utf-8", newline="") as out:
                writer = csv.DictWriter(out, COLUMNS[file], lineterminator="\n")
                writer.writerows(rows)
                out.flush()
                os.fsync(out.fileno())
        self.finished.append(stretch)
        self._write_manifest()

    def fault(self, row: str, reason: str) -> None:
        """Note a row that ended a run: the next one passes over it."""
        self.faults[row] = reason
        self._write_manifest()

    def _write_manifest(self) -> None:
        manifest = {
            "schema": SCHEMA,
            "identity": dict(self.identity),
            "about": dict(self.about),
            "finished": self.finished,
            "faults": self.faults,
            "files": {file: _entry(self.folder / file) for file in COLUMNS},
        }
        new = self.folder / f"{MANIFEST}.new"
        new.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        os.replace(new, self.folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a record; raises AccelsimError if it is missing or of another version."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AccelsimError(f"{path} is missing; latencies without it are refused") from None
    except ValueError as fault:
        raise AccelsimError(f"{path} is no JSON: {fault}") from None
    version = found.get("schema") if isinstance(found, dict) else None
    if version != SCHEMA:
        raise AccelsimError(f"{path} is of version {version}; accepted: {SCHEMA}")
    for key in ("identity", "about", "finished", "faults", "files"):
        if key not in found:
            raise AccelsimError(f"{path} has no '{key}'; accepted: what the timing kit wrote")
    return dict(found)


def read_lines(folder: Path, file: str) -> list[dict[str, str]]:
    """The lines of a file that the manifest vouches for.

    Raises:
        AccelsimError: no manifest, another version, or a file that does not match its digest.
    """
    files = read_manifest(folder)["files"]
    if file not in files:
        raise AccelsimError(
            f"{folder / MANIFEST} does not list {file}; accepted: {', '.join(files)}"
        )
    text = _whole(folder, file, files[file]).decode()
    return list(csv.DictReader(io.StringIO(text)))


def _whole(folder: Path, file: str, entry: Mapping[str, Any]) -> bytes:
    """The bytes of a file up to the length that the manifest gives, if they have its digest."""
    path = folder / file
    if not path.is_file():
        raise AccelsimError(f"{path} is missing; {MANIFEST} lists it")
    content = path.read_bytes()[: entry["bytes"]]
    if len(content) < entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise AccelsimError(f"{path} does not match its digest in {MANIFEST}; refused")
    return content


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of what differs, one level down where both are mappings."""
    found = []
    for key in sorted({*old, *new}):
        mine, theirs = old.get(key), new.get(key)
        if mine == theirs:
            continue
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += [f"{key}.{name}" for name in _differences(mine, theirs)]
        else:
            found.append(str(key))
    return found
