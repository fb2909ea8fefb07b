"""What a user types for a workload: `NAME[:key=value,...]`, and the library of named ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from accelsim.errors import AccelsimError, unknown
from accelsim.workload._words import did_you_mean, listed, parse_whole, shown
from accelsim.workload.coding import coding_assumptions
from accelsim.workload.graph import Graph
from accelsim.workload.huggingface import read_config
from accelsim.workload.kinds import DEFAULT_DTYPE, KEYS, describe
from accelsim.workload.networks import NETWORKS, image_network
from accelsim.workload.parallel import PARALLEL_KEYS, parallel
from accelsim.workload.routing_choice import ROUTING_KEYS, routing_choice
from accelsim.workload.scalesim_topology import parse_topology, read_topology
from accelsim.workload.single import standalone
from accelsim.workload.sub_batches import SUB_BATCH_KEYS, interleaved, sub_batches
from accelsim.workload.tensors import dtype_named
from accelsim.workload.training import Training, training_step
from accelsim.workload.transformer import Pass, build_transformer, forward_pass
from accelsim.workload.transformer_config import OVERRIDABLE
from accelsim.workload.yaml_graph import describe_yaml_graph, read_yaml_graph

Settings = dict[str, object]

PASS_KEYS = (
    *("phase", "batch", "tokens", "context", "dtype", "logits"),
    *("kv_dtype", "page", "prefix", "dataset", "seed", "contexts", "optimizer"),
    *("weights", "sparsity", "sparsity_seed"),
)


def parse_workload(text: str) -> Graph:
    """The workload that `NAME[:key=value,...]` names.

    NAME is an inline operator kind (`gemm:m=128,n=768,k=768`), a file of the workload library
    (`llama-2-7b:phase=decode,batch=16,context=2048`), or a path: a Hugging Face `config.json`
    or a directory that holds one, a SCALE-Sim topology `.csv`, a `.yaml` graph. In a decode
    `dataset` and `seed`, or `contexts`, give every sequence a length of its own; `tp`, `pp` and
    `stage` describe one device of several (see workload.parallel), `subbatch=2` halves of a
    decode batch that take turns (see workload.sub_batches). A mixture of
    experts also takes `routing` (balanced, uniform, zipf or a file), `skew`, `seed` and `draw`
    (see workload.routing_choice).

    Raises:
        AccelsimError: one line with what was wrong and what is accepted.
    """
    return workload(text)


def workload(name: str | Path, **settings: object) -> Graph:
    """The workload called `name`, with settings as in `parse_workload`.

    `workload("llama-2-7b", phase="decode", batch=16, context=2048)` equals
    `parse_workload("llama-2-7b:phase=decode,batch=16,context=2048")`.

    Raises:
        AccelsimError: one line with what was wrong and what is accepted.
    """
    head, pairs = _split(str(name))
    for key in settings:
        if key in pairs:
            raise AccelsimError(f"{head}: '{key}' is given twice; accepted: once")
    pairs.update(settings)
    if head in KEYS:
        return _inline(head, pairs)
    if head in NETWORKS and (pairs.get("phase") or head not in _stems()):
        return _image_network(head, pairs)
    file = _file(head)
    return _READERS[file.suffix](file, pairs)


def list_workloads() -> list[tuple[str, str]]:
    """Name and one-line description of every workload of the library, by name."""
    files = {file.stem: file for file in _library()}
    told = {name: network.description for name, network in NETWORKS.items()}
    return sorted({**told, **{name: _description(file) for name, file in files.items()}}.items())


def check_transformer(name: str, families: Sequence[str]) -> None:
    """Raise AccelsimError for a name that is no transformer of the library of some families, and no
    path."""
    known = [file.stem for file in _library() if file.suffix == ".json"]
    known = [one for one in known if read_config(_file(one)).family in families]
    if name not in known and not os.path.exists(name):
        what = f"transformer ({listed(families)})"
        raise AccelsimError(f"{unknown(what, name, known)}, or a path")


def library_folder() -> Path:
    """The folder of the workload library, installed or beside the package in a checkout."""
    from importlib import resources  # a quarter of this room's import time

    try:
        return Path(str(resources.files("accelsim.workloads")))
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / "workloads"


def _split(text: str) -> tuple[str, Settings]:
    """Name and key-value pairs of a workload text."""
    if text and os.path.exists(text):  # a path may contain colons
        return text, {}
    if not text.isprintable():
        raise AccelsimError(f"workload {shown(text)} holds control characters; accepted: one line")
    head, colon, rest = text.partition(":")
    head = head.strip()
    if not head:
        raise AccelsimError(f"workload {shown(text)} has no name; accepted: NAME[:key=value,...]")
    pairs: Settings = {}
    for part in rest.split(",") if colon else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise AccelsimError(f"{head}: {shown(part)} is no setting; accepted: key=value")
        if key in pairs:
            raise AccelsimError(f"{head}: '{key}' is given twice; accepted: once")
        pairs[key] = value
    return head, pairs


def _inline(kind: str, pairs: Settings) -> Graph:
    """A graph of one operator."""
    form, dtype, extras, out, coding = describe(kind, pairs, kind)
    try:
        chosen = dtype or DEFAULT_DTYPE
        operator, specs = standalone(form, kind, chosen, extras=extras, out=out, coding=coding)
        settings = {**{key: str(value) for key, value in pairs.items()}, "dtype": chosen}
        tensors = {spec.name: spec for spec in specs}
        return Graph(kind, tensors, (operator,), settings, coding_assumptions(specs))
    except AccelsimError as error:
        raise AccelsimError(str(error).replace(f"operator '{kind}' ({kind})", kind)) from None


NETWORK_KEYS = ("phase", "batch", "dtype", "size", "optimizer", "sparsity")


def _image_network(name: str, pairs: Settings) -> Graph:
    """A network over images as it is trained: its forward pass, or a whole training step."""
    _known_keys(name, pairs, NETWORK_KEYS)
    phase = str(pairs.pop("phase", "forward"))
    if phase not in ("forward", "train"):
        accepted = "forward, train" + (", or none for inference" if name in _stems() else "")
        raise AccelsimError(f"{name}: phase is {shown(phase)}; accepted: {accepted}")
    training = _training(name, phase, pairs)
    if "sparsity" in pairs:
        raise AccelsimError(f"{name}: sparsity; accepted: with phase=train")
    dtype = dtype_named(pairs.pop("dtype", DEFAULT_DTYPE), name)
    if not dtype.is_float:
        raise AccelsimError(f"{name}: dtype is '{dtype.name}'; accepted: fp32, fp16, bf16")
    batch = parse_whole(pairs.pop("batch", 1), f"{name}: batch")
    size = parse_whole(pairs.pop("size", 0), f"{name}: size", least=0)
    graph = image_network(name, batch, dtype.name, size, trains=training is not None)
    return graph if training is None else training_step(graph, training)


def _training(name: str, phase: str, pairs: Settings) -> Training | None:
    """How to train, if that is the phase."""
    if phase == "train":
        optimizer = pairs.pop("optimizer", "adam")
        return Training.parse(optimizer, name, pairs.pop("sparsity", None))
    if "optimizer" in pairs:
        raise AccelsimError(f"{name}: optimizer; accepted: with phase=train")
    return None


def _known_keys(name: str, pairs: Settings, known: tuple[str, ...]) -> None:
    for key in pairs:
        if key not in known:
            raise AccelsimError(
                f"{name}: unknown key '{key}'{did_you_mean(key, known)}; accepted: {listed(known)}"
            )


def _stems() -> set[str]:
    return {file.stem for file in _library()}


def _yaml(file: Path, pairs: Settings) -> Graph:
    """A graph in YAML, or a training step of it."""
    phase = pairs.pop("phase", None)
    if phase not in (None, "train"):
        raise AccelsimError(f"{file.stem}: phase is {shown(phase)}; accepted: train, or none")
    training = _training(file.stem, str(phase), pairs)
    graph = read_yaml_graph(file, pairs)
    return graph if training is None else training_step(graph, training)


def _library() -> list[Path]:
    return [file for file in library_folder().glob("*.*") if file.suffix in _READERS]


def _file(name: str) -> Path:
    """The file that a library name or a path means."""
    library = {file.stem: file for file in _library()}
    if name in library:
        return library[name]
    # os.path answers False, and does not raise, for names that no file system accepts.
    path, is_file = Path(name), os.path.isfile(name)
    if os.path.isdir(name):
        if not os.path.isfile(path / "config.json"):
            raise AccelsimError(f"{name}: no config.json in it; accepted: a model folder")
        return path / "config.json"
    if is_file and path.suffix in _READERS:
        return path
    if is_file or path.suffix in _READERS or "/" in name:
        problem = "unknown file type" if is_file else "no such file"
        raise AccelsimError(f"{name}: {problem}; accepted: {listed(_READERS)} or a folder")
    hint = did_you_mean(name, [*library, *NETWORKS, *KEYS])
    raise AccelsimError(
        f"unknown workload {shown(name)}{hint}; accepted: a name from `accelsim list workloads`, "
        f"an operator ({listed(KEYS)}) or a path"
    )


def _huggingface(file: Path, pairs: Settings) -> Graph:
    """A transformer; keys are those of the pass and the fields of its config."""
    config = read_config(file)
    known = (*PASS_KEYS, *PARALLEL_KEYS, *SUB_BATCH_KEYS, *(ROUTING_KEYS if config.experts else ()))
    for key in pairs:
        if key not in known and key not in OVERRIDABLE and key not in ROUTING_KEYS:
            hint = did_you_mean(key, [*known, *OVERRIDABLE])
            raise AccelsimError(
                f"{config.name}: unknown key '{key}'{hint}; accepted: {listed(known)}, "
                f"and to change the model {listed(OVERRIDABLE)}"
            )
    changed = config.overridden({key: pairs[key] for key in pairs if key in OVERRIDABLE})
    chosen = {key: value for key, value in pairs.items() if key in PASS_KEYS}
    routing = {key: value for key, value in pairs.items() if key in ROUTING_KEYS}
    if "dataset" in pairs and not config.experts:
        routing.pop("seed", None)
    training = _training(config.name, str(chosen.get("phase")), chosen)
    if training and chosen.get("logits", "all") != "all":
        given = shown(chosen["logits"])
        raise AccelsimError(f"{config.name}: logits is {given}; accepted for training: all")
    step = forward_pass(changed, **chosen)  # type: ignore[arg-type]
    spread = parallel(changed, pairs.get("tp", 1), pairs.get("pp", 1), pairs.get("stage"))
    routed = routing_choice(changed, routing)

    def build(part: Pass) -> Graph:
        return build_transformer(changed, part, routed, spread)

    count, least = (pairs.get(key) for key in SUB_BATCH_KEYS)
    parts = sub_batches(step, count, least, str(changed))
    graph = build(step) if len(parts) == 1 else interleaved(step, parts, build)
    return graph if training is None else training_step(graph, training)


def _topology(file: Path, pairs: Settings) -> Graph:
    """A SCALE-Sim topology; further keys are the letters of a template."""
    form, dtype = pairs.pop("form", "auto"), pairs.pop("dtype", "int8")
    return read_topology(file, form=str(form), dtype=str(dtype), symbols=pairs)


_READERS: Mapping[str, Callable[[Path, Settings], Graph]] = {
    ".json": _huggingface,
    ".csv": _topology,
    ".yaml": _yaml,
    ".yml": _yaml,
}


def _description(file: Path) -> str:
    if file.suffix == ".csv":
        form, rows = parse_topology(file, "auto", {})
        return f"SCALE-Sim topology, {form}, {len(rows)} layers"
    if file.suffix != ".json":
        return describe_yaml_graph(file)
    config = read_config(file)
    size = f"{config.parameters / 1e9:.3g} B parameters"
    if config.experts:
        size += f" ({config.active_parameters / 1e9:.3g} B active)"
    return f"{config.family}, {config.layers} layers, hidden {config.hidden}, {size}"
