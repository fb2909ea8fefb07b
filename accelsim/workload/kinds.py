"""The keys that describe one operator in text: `gemm:m=128,n=768,k=768`, or a YAML entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from accelsim.errors import AccelsimError
from accelsim.workload._words import (
    did_you_mean,
    listed,
    parse_bool,
    parse_float,
    parse_text,
    parse_whole,
)
from accelsim.workload.operators import KINDS, Gemm, Operator
from accelsim.workload.single import Form
from accelsim.workload.tensors import dtype_named

DEFAULT_DTYPE = "bf16"


class Description(NamedTuple):
    """An operator as described by key-value pairs, not yet bound to tensors."""

    form: Form
    dtype: str | None
    extras: tuple[str, ...]
    """Optional operands that it has."""
    out: str | None
    """Format of the result where it is not the natural one."""


class _Key(NamedTuple):
    """A key: the field that it sets, how its value is read, and its default (None: required)."""

    field: str
    parse: Callable[[object, str], object]
    default: object = None


def _size(field: str, default: int | None = None) -> _Key:
    return _Key(field, parse_whole, default)


def _offset(field: str) -> _Key:
    return _Key(field, lambda value, what: parse_whole(value, what, least=0), 0)


def _flag(field: str) -> _Key:
    return _Key(field, parse_bool, False)


def _same(field: str, other: str) -> _Key:
    """A size that equals another key's value unless given."""
    return _Key(field, parse_whole, other)


def _number_format(value: object, what: str) -> str:
    """The name of a number format."""
    return dtype_named(parse_text(value, what), what).name


def _sizes(value: object, what: str) -> tuple[int, ...]:
    """Sizes, joined by "+" as text."""
    parts = value.split("+") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        parts = [parts]
    return tuple(parse_whole(part, what, least=0) for part in parts)


_EXTRAS = ("bias", "residual", "copies")
_FUSED = {
    "bias": _flag("bias"),
    "residual": _flag("residual"),
    "activation": _Key("activation", parse_text, ""),
}
_MATRIX = {"rows": _size("rows"), "cols": _size("cols")}
_EPS = {"eps": _Key("eps", parse_float, 1e-5)}
_HEADS = {"d": _size("head_dim"), "batch": _size("batch", 1)}
_CACHE = {
    "kv_dtype": _Key("kv_dtype", _number_format, ""),
    **{name: _offset(name) for name in ("page", "prefix", "page_seed")},
    "contexts": _Key("contexts", _sizes, ()),
}
_RECURRENCE = {
    "heads": _size("heads"),
    "q": _size("q_len"),
    **_HEADS,
    "dv": _same("value_dim", "head_dim"),
    "decay": _Key("decay", parse_text, ""),
    "chunk": _offset("chunk"),
    "state": _flag("state"),
}

KEYS: dict[str, dict[str, _Key]] = {
    "gemm": {
        "m": _size("m"),
        "n": _size("n"),
        "k": _size("k"),
        "batch": _size("batch", 1),
        **_FUSED,
        "transpose_b": _flag("transpose_b"),
        "broadcast_b": _flag("broadcast_b"),
        "groups": _size("groups", 1),
        "accumulator": _Key("accumulator", _number_format, ""),
    },
    "gemv": {
        "n": _size("n"),
        "k": _size("k"),
        "batch": _size("batch", 1),
        **_FUSED,
        "transpose_b": _flag("transpose_b"),
        "broadcast_b": _flag("broadcast_b"),
        "groups": _size("groups", 1),
        "accumulator": _Key("accumulator", _number_format, ""),
    },
    "conv2d": {
        **{name: _size(name) for name in ("h", "w", "cin", "cout", "fh", "fw")},
        "stride": _size("stride", 1),
        "padding": _offset("padding"),
        "groups": _size("groups", 1),
        "batch": _size("batch", 1),
        **_FUSED,
    },
    "pool2d": {
        "function": _Key("function", parse_text),
        **{name: _size(name) for name in ("h", "w", "channels", "fh", "fw")},
        "stride": _size("stride", 1),
        "padding": _offset("padding"),
        "batch": _size("batch", 1),
    },
    "attention": {
        "heads": _size("heads"),
        "kv_heads": _same("kv_heads", "heads"),
        "q": _size("q_len"),
        "kv": _size("kv_len"),
        **_HEADS,
        "causal": _flag("causal"),
        "window": _offset("window"),
        "alibi": _flag("alibi"),
        "rope_dim": _offset("rope_dim"),
        "latent": _flag("latent"),
        "cached": _Key("cached", parse_bool, True),
        **_CACHE,
    },
    "kv_append": {
        "kv_heads": _size("kv_heads"),
        "q": _size("q_len"),
        **_HEADS,
        "capacity": _size("kv_capacity"),
        "position": _offset("position"),
        **_CACHE,
    },
    "linear_attention": {
        **_RECURRENCE,
        "scale": _Key("scale", parse_float, 0.0),
    },
    "state_update": _RECURRENCE,
    "softmax": _MATRIX,
    "layernorm": {**_MATRIX, **_EPS},
    "rmsnorm": {**_MATRIX, **_EPS},
    "rotary": {
        "heads": _size("heads"),
        "d": _size("head_dim"),
        "tokens": _size("tokens"),
        "q": _same("q_len", "tokens"),
        "position": _offset("position"),
    },
    "activation": {"function": _Key("function", parse_text), **_MATRIX},
    "glu": {"function": _Key("function", parse_text), **_MATRIX},
    "elementwise": {
        "function": _Key("function", parse_text),
        **_MATRIX,
        "broadcast_b": _flag("broadcast_b"),
    },
    "residual": _MATRIX,
    "embedding": {name: _size(name) for name in ("vocab", "hidden", "tokens")},
    "grouped_gemm": {"m": _Key("m", _sizes), "n": _size("n"), "k": _size("k")},
    "expert_gate": {
        **{name: _size(name) for name in ("tokens", "experts", "top_k")},
        "normalise": _flag("normalise"),
        "scale": _Key("scale", parse_float, 1.0),
        "bias": _flag("bias"),
    },
    "expert_combine": {
        **{name: _size(name) for name in ("tokens", "hidden", "top_k")},
        "rows": _size("table_rows"),
        "copies": _flag("copies"),
    },
}
"""Per kind: the keys of an operator in text, with the field that each sets."""

ALIASES = {
    "q_len": "q",
    "kv_len": "kv",
    "head_dim": "d",
    "kv_capacity": "capacity",
    "value_dim": "dv",
}
"""Field names accepted for the shorter keys."""


def describe(kind: str, given: Mapping[str, object], where: str) -> Description:
    """An operator from its kind and key-value pairs; values may be text.

    Raises:
        AccelsimError: beginning with `where`, for an unknown kind or key, a missing key, or a
            value of the wrong type.
    """
    if kind not in KEYS:
        hint = did_you_mean(kind, KEYS)
        raise AccelsimError(f"{where}: unknown kind '{kind}'{hint}; accepted: {listed(KEYS)}")
    keys = KEYS[kind]
    pairs = _canonical(given, keys, where)
    dtype = pairs.pop("dtype", None)
    out = pairs.pop("out", None)
    for named in (dtype, out):
        if named is not None:
            dtype_named(named, where)
    fields: dict[str, Any] = {}
    for name, key in keys.items():
        fields[key.field] = _value(name, key, pairs, fields, where)
    extras = [name for name in _EXTRAS if fields.pop(name, False)]
    if "copies" in extras:
        extras.append("x")  # what is copied
    return Description(_form(kind, fields), _text(dtype), tuple(extras), _text(out))


def _text(name: object) -> str | None:
    return None if name is None else str(name)


def _canonical(
    given: Mapping[str, object], keys: Mapping[str, _Key], where: str
) -> dict[str, object]:
    """The pairs under their short names, all known and given once."""
    pairs: dict[str, object] = {}
    formats = ["dtype", "out"] if "k" in keys or "cout" in keys else ["dtype"]
    for name, value in given.items():
        short = ALIASES.get(name, name)
        if short not in keys and short not in formats:
            accepted = [*keys, *formats]
            hint = did_you_mean(name, accepted)
            raise AccelsimError(
                f"{where}: unknown key '{name}'{hint}; accepted: {listed(accepted)}"
            )
        if short in pairs:
            raise AccelsimError(f"{where}: '{name}' and '{short}' are the same key; accepted: one")
        pairs[short] = value
    return pairs


def _value(
    name: str, key: _Key, pairs: Mapping[str, object], fields: Mapping[str, object], where: str
) -> object:
    if name in pairs:
        return key.parse(pairs[name], f"{where}: {name}")
    if isinstance(key.default, str) and key.default:
        return fields[key.default]
    if key.default is None:
        raise AccelsimError(f"{where}: missing '{name}'; accepted: {name}=...")
    return key.default


def _form(kind: str, fields: dict[str, Any]) -> Form:
    """Operator class and fields, for the kinds whose text differs from the fields."""
    if kind == "gemv":
        return Gemm, {"m": 1, **fields}
    if kind in ("conv2d", "pool2d"):
        fields["stride"] = (fields["stride"],) * 2
        fields["padding"] = (fields["padding"],) * 4
    if kind == "rotary":
        fields["table_rows"] = fields["position"] + fields["q_len"]
    cls: type[Operator] = KINDS[kind]
    return cls, fields
