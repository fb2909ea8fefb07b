"""SCALE-Sim import: the `.cfg` of v2 and v3 as data, and topology CSV files as graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from accelsim.errors import AccelsimError
from accelsim.workload._words import (
    did_you_mean,
    listed,
    parse_bool,
    parse_float,
    parse_text,
    parse_whole,
    shown,
)
from accelsim.workload.scalesim_topology import read_lines, read_topology

__all__ = ["ScaleSimConfig", "read_scalesim_config", "read_topology"]


def _key(name: str, default: Any, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field that is read from the cfg key `name`."""
    return field(default=default, metadata={"key": name, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class ScaleSimConfig:
    """A SCALE-Sim accelerator and run setting, with the defaults of v3 for absent keys.

    Sizes are in kB of the whole double buffer (half is active), one word is one byte, offsets
    are word addresses, bandwidths are words per cycle. `bandwidths` empty means none was given.
    The layout and sparsity fields carry the v3 sections as they stand.
    """

    array_height: int = _key("ArrayHeight", None)
    array_width: int = _key("ArrayWidth", None)
    ifmap_sram_kb: int = _key("IfmapSramSzkB", None)
    filter_sram_kb: int = _key("FilterSramSzkB", None)
    ofmap_sram_kb: int = _key("OfmapSramSzkB", None)
    dataflow: str = _key("Dataflow", None, ("os", "ws", "is"))
    run_name: str = _key("run_name", "scale_run")
    ifmap_offset: int = _key("IfmapOffset", 0)
    filter_offset: int = _key("FilterOffset", 10_000_000)
    ofmap_offset: int = _key("OfmapOffset", 20_000_000)
    bandwidths: tuple[float, ...] = _key("Bandwidth", ())
    interface_bandwidth: str = _key("InterfaceBandwidth", "CALC", ("CALC", "USER"))
    memory_banks: int = _key("MemoryBanks", 1)
    read_request_buffer: int = _key("ReadRequestBuffer", 32)
    write_request_buffer: int = _key("WriteRequestBuffer", 32)
    use_ramulator_trace: bool = _key("UseRamulatorTrace", False)
    ifmap_custom_layout: bool = _key("IfmapCustomLayout", False)
    ifmap_sram_bank_bandwidth: int = _key("IfmapSRAMBankBandwidth", 10)
    ifmap_sram_bank_num: int = _key("IfmapSRAMBankNum", 10)
    ifmap_sram_bank_port: int = _key("IfmapSRAMBankPort", 2)
    filter_custom_layout: bool = _key("FilterCustomLayout", False)
    filter_sram_bank_bandwidth: int = _key("FilterSRAMBankBandwidth", 10)
    filter_sram_bank_num: int = _key("FilterSRAMBankNum", 10)
    filter_sram_bank_port: int = _key("FilterSRAMBankPort", 2)
    sparsity_support: bool = _key("SparsitySupport", False)
    sparse_rep: str = _key("SparseRep", "ellpack_block", ("csr", "csc", "ellpack_block"))
    optimized_mapping: bool = _key("OptimizedMapping", False)
    block_size: int = _key("BlockSize", 8)
    random_number_generator_seed: int = _key("RandomNumberGeneratorSeed", 40)


IGNORED = (
    *("SRAM_row_size", "SRAM_bank_size", "DRAM_row_size", "DRAM_bank_size"),
    *("SparseAcc", "NonZeroElems", "Topology", "save_disk_space"),
)
"""Keys of shipped files that no released version reads."""


class _Entry(NamedTuple):
    text: str
    line: int


def read_scalesim_config(path: str | Path) -> ScaleSimConfig:
    """A SCALE-Sim `.cfg` file.

    Accepts v2 and v3 files: keys in any case, `:` or `=`, comments with # or ;, keys in any
    section, and every key that v3 added may be absent.

    Raises:
        AccelsimError: with file:line, for an unknown or repeated key, a value of the wrong
            type, or a missing array size, SRAM size or dataflow.
    """
    file = Path(path)
    entries = _entries(file)
    keys = {f.metadata["key"].lower(): f for f in fields(ScaleSimConfig)}
    known = [f.metadata["key"] for f in keys.values()]
    ignored = {name.lower() for name in IGNORED}
    values: dict[str, Any] = {}
    for key, entry in entries.items():
        where = f"{file}:{entry.line}"
        if key.lower() in ignored:
            continue
        if key.lower() not in keys:
            hint = did_you_mean(key, known)
            raise AccelsimError(f"{where}: unknown key '{key}'{hint}; accepted: {listed(known)}")
        spec = keys[key.lower()]
        what = f"{where}: {spec.metadata['key']}"
        choices = spec.metadata["choices"]
        values[spec.name] = _parse(str(spec.type), entry.text, what, choices)
    missing = [
        f.metadata["key"] for f in keys.values() if f.default is None and f.name not in values
    ]
    if missing:
        raise AccelsimError(f"{file}: missing {listed(missing)}; accepted: all sizes and Dataflow")
    return ScaleSimConfig(**values)


def _entries(file: Path) -> dict[str, _Entry]:
    """Key, value and line of every assignment, whatever its section."""
    entries: dict[str, _Entry] = {}
    seen: dict[str, int] = {}
    for line, raw in enumerate(read_lines(file), start=1):
        text = raw.split("#")[0].split(";")[0].strip()
        if not text or (text.startswith("[") and text.endswith("]")):
            continue
        cut = min((text.find(mark) for mark in ":=" if mark in text), default=-1)
        key, value = text[:cut].strip(), text[cut + 1 :].strip()
        if cut < 1 or not key:
            raise AccelsimError(f"{file}:{line}: {shown(text)}; accepted: [section] or KEY: VALUE")
        if key.lower() in seen:
            raise AccelsimError(
                f"{file}:{line}: key '{key}' is given on line {seen[key.lower()]} too"
            )
        seen[key.lower()] = line
        entries[key] = _Entry(value, line)
    return entries


def _parse(kind: str, text: str, what: str, choices: tuple[str, ...]) -> object:
    if kind.startswith("tuple"):
        return tuple(_bandwidth(part, what) for part in text.split(",") if part.strip())
    if choices:
        folded = {choice.lower(): choice for choice in choices}
        if text.lower() not in folded:
            hint = did_you_mean(text, choices)
            raise AccelsimError(f"{what} is {shown(text)}{hint}; accepted: {listed(choices)}")
        return folded[text.lower()]
    return _PARSERS[kind](text, what)


def _bandwidth(text: str, what: str) -> float:
    value = parse_float(text, what)
    if value <= 0:
        raise AccelsimError(f"{what} is {shown(text)}; accepted: words per cycle above 0")
    return value


def _size(text: str, what: str) -> int:
    zero_means_something = what.endswith(("Offset", "Seed"))
    return parse_whole(text, what, least=0 if zero_means_something else 1)


_PARSERS: dict[str, Callable[[str, str], object]] = {
    "int": _size,
    "str": parse_text,
    "bool": parse_bool,
}
