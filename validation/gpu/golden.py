"""Golden files: what a GPU gave, beside a manifest that says which GPU, which kernels and how.

    golden/GPU/manifest.json     provenance, and for each set its status, recipe and cases
    golden/GPU/SET.npz           outputs as bit patterns: all, or 1024 seeded ones of each case

A case carries the digest of its inputs, of its whole output, and of sixteen equal spans of it. A
file that does not match its digest, a manifest of another version or none at all is refused by
name; nothing is repaired or guessed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.numerics.splitmix import key_of, splitmix64

Array = npt.NDArray[Any]

SCHEMA = 1
MANIFEST = "manifest.json"
KEPT = 1024
"""Elements of an output that are stored; longer ones are sampled."""
SPANS = 16

RECORDED, SKIPPED, DROPPED, FAILED = "recorded", "skipped", "dropped", "failed"

FIELDS: dict[str, dict[str, type]] = {
    "the manifest": {"device": dict, "sets": dict},
    "device": {"kind": str, "name": str, "capability": str},
    RECORDED: {"recipe": str, "file": str, "sha256": str, "cases": dict, "capability": str},
    "case": {"inputs": str, "outputs": str, "count": int, "spans": list, "order": str,
             "notes": dict},
    **{status: {"reason": str} for status in (SKIPPED, DROPPED, FAILED)},
}  # fmt: skip
"""What each part of a manifest must hold, and as what; a set's part is called by its status."""


def digest(*parts: bytes | str) -> str:
    """sha256 of some bytes and texts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()


def array_digest(values: Array) -> str:
    """sha256 of an array: its type, its shape and its little-endian bytes."""
    plain = np.ascontiguousarray(values)
    return digest(f"{plain.dtype.str}{plain.shape}", plain.tobytes())


def span_digests(values: Array) -> list[str]:
    """The first 16 digits of the sha256 of each of sixteen spans of an output."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return [digest(part.tobytes())[:16] for part in np.array_split(flat, SPANS)]


def positions(case: str, count: int) -> npt.NDArray[np.int64]:
    """Which elements of an output are stored: all, or a seeded sample in ascending order."""
    if count <= KEPT:
        return np.arange(count)
    drawn = splitmix64(key_of(f"{case}:kept"), 2 * KEPT) % np.uint64(count)
    return np.unique(drawn.astype(np.int64))[:KEPT]


@dataclass(frozen=True)
class Golden:
    """One recorded case: what the manifest says of it, and the elements that were stored."""

    set_name: str
    case: str
    entry: Mapping[str, Any]
    kept: Array

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the kernel said of itself: an algorithm, a layout that was found."""
        found: Mapping[str, Any] = self.entry["notes"]
        return found

    def differing(self, output: Array) -> tuple[int, int]:
        """(stored elements that differ, spans that differ) from a recomputed output."""
        if output.size != self.entry["count"]:
            raise AccelsimError(
                f"{self.case}: {output.size} outputs recomputed, {self.entry['count']} recorded"
            )
        flat = np.ascontiguousarray(output).reshape(-1)
        stored = int((flat[positions(self.case, flat.size)] != self.kept).sum())
        spans = zip(span_digests(flat), self.entry["spans"], strict=True)
        return stored, sum(mine != theirs for mine, theirs in spans)


def entry_of(output: Array, inputs: str, order: str, notes: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest keeps of a case."""
    return {
        "inputs": inputs,
        "outputs": array_digest(output),
        "count": int(output.size),
        "spans": span_digests(output),
        "order": order,
        "notes": dict(notes),
    }


class Folder:
    """One folder of golden files, written set by set: what is there survives an interruption."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def fresh(cls, path: Path, device: Mapping[str, Any]) -> Folder:
        """A folder to record into: empty, or one of the same GPU and versions, continued."""
        path.mkdir(parents=True, exist_ok=True)
        if not (path / MANIFEST).exists():
            new = cls(path, {"schema": SCHEMA, "device": dict(device), "sets": {}})
            new.write()
            return new
        found = cls.read(path, allow_fake=True)
        if found.manifest["device"] != dict(device):
            changed = sorted(
                key
                for key in {*device, *found.manifest["device"]}
                if device.get(key) != found.manifest["device"].get(key)
            )
            raise AccelsimError(
                f"{path} was recorded with another {', '.join(changed)}; record into an empty"
                " folder"
            )
        return found

    @classmethod
    def opened(cls, path: Path) -> Folder:
        """A folder of any device, to go on recording in."""
        return cls.read(path, allow_fake=True)

    @classmethod
    def read(cls, path: Path, *, allow_fake: bool = False) -> Folder:
        """An existing folder; AccelsimError names what is missing or of another version."""
        file = path / MANIFEST
        if not file.is_file():
            raise AccelsimError(f"{path} holds no {MANIFEST}: golden files without one are refused")
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as fault:
            raise AccelsimError(f"{file} is no JSON: {fault}") from fault
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            version = manifest.get("schema") if isinstance(manifest, dict) else None
            raise AccelsimError(f"{file} is of version {version}; accepted: {SCHEMA}")
        _whole(file, manifest)
        if manifest["device"]["kind"] != "cuda" and not allow_fake:
            raise AccelsimError(f"{file} was not recorded on a GPU; it is no evidence")
        return cls(path, manifest)

    @property
    def sets(self) -> dict[str, Any]:
        """Entries of the sets by name."""
        found: dict[str, Any] = self.manifest["sets"]
        return found

    def complete(self, name: str, recipe: str) -> bool:
        """Whether a set was recorded from this very recipe and its file is whole."""
        entry = self.sets.get(name)
        if entry is None or entry["status"] != RECORDED or entry["recipe"] != recipe:
            return False
        file = self.path / entry["file"]
        return file.is_file() and digest(file.read_bytes()) == str(entry["sha256"])

    def record(
        self, name: str, recipe: str, cases: Mapping[str, dict[str, Any]],
        kept: Mapping[str, Array], about: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Write a set's file, then the manifest that names it."""
        content = packed(kept)
        (self.path / f"{name}.npz").write_bytes(content)
        self.note(name, RECORDED, recipe=recipe, file=f"{name}.npz", sha256=digest(content),
                  cases=dict(cases), **about)  # fmt: skip

    def note(self, name: str, status: str, **about: Any) -> None:
        """Say of a set what became of it."""
        self.sets[name] = {"status": status, **about}
        self.write()

    def write(self) -> None:
        """The manifest, all or nothing."""
        text = json.dumps(self.manifest, indent=1, sort_keys=True) + "\n"
        partial = self.path / f"{MANIFEST}.part"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.path / MANIFEST)

    def goldens(self, name: str) -> list[Golden]:
        """The cases of a recorded set; AccelsimError if its file is not what was recorded."""
        entry = self.sets[name]
        file = self.path / entry["file"]
        if not file.is_file():
            raise AccelsimError(f"{file} is missing, though {MANIFEST} lists it")
        content = file.read_bytes()
        if digest(content) != entry["sha256"]:
            raise AccelsimError(f"{file} does not match its digest in {MANIFEST}: refused")
        with _opened(file, content) as arrays:
            return [
                Golden(name, case, about, _kept(file, arrays, case, int(about["count"])))
                for case, about in sorted(entry["cases"].items())
            ]

    def table(self, name: str, key: str) -> Array:
        """An array that a set keeps besides its cases."""
        self.goldens(name)  # which refuses a file that is not what was recorded
        file = self.path / self.sets[name]["file"]
        with _opened(file, file.read_bytes()) as arrays:
            if key not in arrays.files:
                raise AccelsimError(f"{file} holds no {key}: refused")
            return np.asarray(arrays[key])


def _whole(file: Path, manifest: Mapping[str, Any]) -> None:
    """AccelsimError for the first part of a manifest that lacks a field."""
    _holds(file, "the manifest", manifest)
    _holds(file, "device", manifest["device"])
    for name, entry in manifest["sets"].items():
        status = entry.get("status") if isinstance(entry, dict) else None
        if status not in (RECORDED, SKIPPED, DROPPED, FAILED):
            raise AccelsimError(f"{file}: set {name} has the status {status!r}: refused")
        _holds(file, status, entry, f"set {name}")
        if Path(str(entry.get("file", ""))).name != str(entry.get("file", "")):
            raise AccelsimError(f"{file}: set {name} names a file outside its folder: refused")
        cases = entry["cases"] if status == RECORDED else {}
        if status == RECORDED and not cases:
            raise AccelsimError(f"{file}: set {name} is recorded, but has no case: refused")
        for case, about in cases.items():
            _holds(file, "case", about, f"case {case}")
            if len(about["spans"]) != SPANS:
                raise AccelsimError(f"{file}: case {case} has {len(about['spans'])} spans: refused")


def _holds(file: Path, part: str, found: Any, name: str = "") -> None:
    """AccelsimError for a field that is missing or something else."""
    for key, kind in FIELDS[part].items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            where = name or part
            raise AccelsimError(f"{file}: {where} has no {key} ({kind.__name__}): refused")


def _opened(file: Path, content: bytes) -> Any:
    """The arrays of a file; AccelsimError if it holds none."""
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError, BadZipFile) as fault:
        raise AccelsimError(f"{file} is no archive of arrays: {fault}") from fault


def _kept(file: Path, arrays: Any, case: str, count: int) -> Array:
    """The stored elements of a case; AccelsimError if they are not those of its positions."""
    try:
        found = np.asarray(arrays[case])
    except (KeyError, ValueError, OSError, BadZipFile) as fault:
        raise AccelsimError(f"{file} holds no outputs of {case}: {fault}") from fault
    asked = len(positions(case, count))
    if found.shape != (asked,) or found.dtype.kind not in "iu":
        raise AccelsimError(
            f"{file}: {case} has outputs {found.dtype}{list(found.shape)}; accepted: {asked} bit"
            " patterns"
        )
    return found


def packed(kept: Mapping[str, Array]) -> bytes:
    """Stored elements by case as one compressed file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{case: kept[case] for case in sorted(kept)})  # type: ignore[arg-type]
    return buffer.getvalue()
