"""Hugging Face `config.json` to TransformerConfig.

Every key of a file is either understood, known not to change the computation, or refused: a
hyper-parameter that is silently ignored gives a plausible graph of the wrong model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.workload import huggingface_experts as experts
from accelsim.workload._words import (
    did_you_mean,
    listed,
    parse_float,
    shown,
    whole,
)
from accelsim.workload.constants import RopeScaling
from accelsim.workload.huggingface_keys import (
    ACTIVATION_NAMES,
    DEFAULTS,
    FAMILY_FIXED,
    FAMILY_ROPE,
    FIXED,
    HARMLESS,
    ROPE_KEYS,
    Defaults,
)
from accelsim.workload.transformer_config import FAMILIES, TransformerConfig


class Values:
    """The keys of one file with defaults filled in; typed access with errors that name the file."""

    def __init__(self, name: str, family: str, where: str, values: Defaults) -> None:
        self.name = name
        self.family = family
        self.where = where
        self.values = values

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def count(self, key: str) -> int:
        """A whole number of at least 1."""
        return whole(self.values[key], f"{self.where}: {key}")

    def count_or_none(self, key: str) -> int | None:
        """A whole number of at least 1, or null."""
        return None if self.values[key] is None else self.count(key)

    def number(self, key: str) -> float:
        """A finite number; text is not one."""
        if isinstance(self.values[key], str):
            raise self.error(key, "a number")
        return parse_float(self.values[key], f"{self.where}: {key}")

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self.values[key]
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def activation(self, key: str) -> str:
        """Our name of an activation function."""
        value = self.values[key]
        if isinstance(value, str) and value in ACTIVATION_NAMES:
            return ACTIVATION_NAMES[value]
        hint = did_you_mean(str(value), ACTIVATION_NAMES) if isinstance(value, str) else ""
        raise self.error(key, f"{listed(ACTIVATION_NAMES)}{hint}")

    def head_dim(self, hidden: str, heads: str) -> int:
        """Width of one head: given, or hidden / heads."""
        if self.values.get("head_dim") is not None:
            return self.count("head_dim")
        width, count = self.count(hidden), self.count(heads)
        if width % count:
            raise AccelsimError(
                f"{self.where}: {hidden} {width} is not a multiple of {heads} {count}; "
                "accepted: a multiple, or an explicit head_dim"
            )
        return width // count

    def error(self, key: str, accepted: str) -> AccelsimError:
        """An error about the value of one key."""
        return AccelsimError(
            f"{self.where}: {key} is {shown(self.values.get(key))}; accepted: {accepted}"
        )


def read_config(path: str | Path) -> TransformerConfig:
    """The transformer that a Hugging Face `config.json` describes.

    Args:
        path: the file, or a directory that holds a `config.json`.

    Returns:
        The config, named after the file (after its directory when it is called config.json).

    Raises:
        AccelsimError: missing file, invalid JSON (with the line), a key that is not understood
            (with the nearest one that is), a wrong type or a contradiction; all with the path.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    stem = file.resolve().parent.name if file.name == "config.json" else file.stem
    return parse_config(_load(file), name=stem or "config", where=str(file))


def parse_config(values: Mapping[str, Any], *, name: str, where: str) -> TransformerConfig:
    """The transformer that the key-value pairs of a Hugging Face config describe.

    Args:
        values: the JSON object.
        name: what the model is called in reports.
        where: how error messages call the source, normally its path.
    """
    family = _family(values, where)
    for key, value in values.items():
        _check_key(key, value, family, where)
    given = {key: value for key, value in values.items() if key in DEFAULTS[family]}
    try:
        return READERS[family](Values(name, family, where, {**DEFAULTS[family], **given}))
    except AccelsimError as error:
        text = str(error)
        raise AccelsimError(text if text.startswith(where) else f"{where}: {text}") from None


def _check_key(key: str, value: object, family: str, where: str) -> None:
    """Refuse a key that is not understood, and a value that would change the computation."""
    fixed = {**FIXED, **FAMILY_FIXED.get(family, {})}
    if key in fixed:
        if not any(type(value) is type(ok) and value == ok for ok in fixed[key]):
            accepted = listed(json.dumps(ok) for ok in fixed[key])
            raise AccelsimError(f"{where}: {key} is {shown(value)}; accepted: {accepted}")
    elif key not in DEFAULTS[family] and key not in HARMLESS and key != "model_type":
        known = [*DEFAULTS[family], *fixed, *HARMLESS]
        raise AccelsimError(
            f"{where}: key '{key}' is not understood for model_type '{family}'"
            f"{did_you_mean(key, known)}; accepted: {listed(sorted(DEFAULTS[family]))}"
        )


def _family(values: Mapping[str, Any], where: str) -> str:
    family = values.get("model_type")
    if isinstance(family, str) and family in READERS:
        return family
    found = "missing" if family is None else shown(family)
    hint = did_you_mean(family, FAMILIES) if isinstance(family, str) else ""
    raise AccelsimError(f"{where}: model_type is {found}{hint}; accepted: {listed(FAMILIES)}")


def _load(file: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=_distinct)
    except AccelsimError as error:
        raise AccelsimError(f"{file}: {error}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AccelsimError(f"{file}: cannot read it ({reason}); accepted: a config.json") from None
    except json.JSONDecodeError as error:
        raise AccelsimError(
            f"{file}:{error.lineno}: invalid JSON at column {error.colno}: {error.msg}"
        ) from None
    except (ValueError, RecursionError):
        raise AccelsimError(f"{file}: not a JSON text; accepted: UTF-8 JSON") from None
    if not isinstance(content, dict):
        raise AccelsimError(f"{file}: the top level is not an object; accepted: {{...}}")
    return content


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise AccelsimError(f"key '{twice}' is given twice; accepted: once")
    return found


def _gpt2(v: Values) -> TransformerConfig:
    hidden, heads = v.count("n_embd"), v.count("n_head")
    return TransformerConfig(
        name=v.name,
        family=v.family,
        hidden=hidden,
        layers=v.count("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=v.head_dim("n_embd", "n_head"),
        ffn=v.count_or_none("n_inner") or 4 * hidden,
        vocab=v.count("vocab_size"),
        positions=v.count("n_positions"),
        norm="layernorm",
        norm_eps=v.number("layer_norm_epsilon"),
        activation=v.activation("activation_function"),
        bias_qkv=True,
        bias_out=True,
        bias_ffn=True,
        tied_embeddings=v.flag("tie_word_embeddings"),
    )


def _opt(v: Values) -> TransformerConfig:
    hidden, heads = v.count("hidden_size"), v.count("num_attention_heads")
    projected = v.count_or_none("word_embed_proj_dim")
    if projected not in (None, hidden):
        raise v.error("word_embed_proj_dim", f"hidden_size {hidden} (no embedding projection)")
    bias, before = v.flag("enable_bias"), v.flag("do_layer_norm_before")
    return TransformerConfig(
        name=v.name,
        family=v.family,
        hidden=hidden,
        layers=v.count("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=v.head_dim("hidden_size", "num_attention_heads"),
        ffn=v.count("ffn_dim"),
        vocab=v.count("vocab_size"),
        positions=v.count("max_position_embeddings"),
        position_offset=2,  # OPTLearnedPositionalEmbedding reserves the first two rows
        norm="layernorm",
        norm_eps=1e-5,
        activation=v.activation("activation_function"),
        bias_qkv=bias,
        bias_out=bias,
        bias_ffn=bias,
        pre_norm=before,
        final_norm=before and not v.flag("_remove_final_layer_norm"),
        tied_embeddings=v.flag("tie_word_embeddings"),
    )


def _bert(v: Values) -> TransformerConfig:
    heads = v.count("num_attention_heads")
    return TransformerConfig(
        name=v.name,
        family=v.family,
        hidden=v.count("hidden_size"),
        layers=v.count("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=v.head_dim("hidden_size", "num_attention_heads"),
        ffn=v.count("intermediate_size"),
        vocab=v.count("vocab_size"),
        positions=v.count("max_position_embeddings"),
        norm="layernorm",
        norm_eps=v.number("layer_norm_eps"),
        activation=v.activation("hidden_act"),
        bias_qkv=True,
        bias_out=True,
        bias_ffn=True,
        causal=False,
        pre_norm=False,
        final_norm=False,
        embedding_norm=True,
        lm_head=False,
        tied_embeddings=v.flag("tie_word_embeddings"),
        token_types=v.count("type_vocab_size"),
        pooler=True,
    )


def _rotary_decoder(v: Values, **differences: Any) -> TransformerConfig:
    """Llama and its descendants: RMSNorm, rotary positions, gated feed-forward, no biases."""
    heads = v.count("num_attention_heads")
    theta, scaling = _rope(v)
    layer_types = v["layer_types"]
    if layer_types is not None and not _all_full(layer_types):
        raise v.error("layer_types", "null or a list of full_attention")
    values: dict[str, Any] = {
        "name": v.name,
        "family": v.family,
        "hidden": v.count("hidden_size"),
        "layers": v.count("num_hidden_layers"),
        "heads": heads,
        "kv_heads": v.count_or_none("num_key_value_heads") or heads,
        "head_dim": v.head_dim("hidden_size", "num_attention_heads"),
        "ffn": v.count("intermediate_size"),
        "vocab": v.count("vocab_size"),
        "positions": v.count("max_position_embeddings"),
        "norm": "rmsnorm",
        "norm_eps": v.number("rms_norm_eps"),
        "activation": v.activation("hidden_act"),
        "gated": True,
        "tied_embeddings": v.flag("tie_word_embeddings"),
        "rotary": True,
        "rope_theta": theta,
        "rope_scaling": scaling,
    }
    return TransformerConfig(**{**values, **differences})


def _all_full(layer_types: object) -> bool:
    return isinstance(layer_types, list) and all(x == "full_attention" for x in layer_types)


def _llama(v: Values) -> TransformerConfig:
    attention, mlp = v.flag("attention_bias"), v.flag("mlp_bias")
    return _rotary_decoder(v, bias_qkv=attention, bias_out=attention, bias_ffn=mlp)


def _mistral(v: Values) -> TransformerConfig:
    return _rotary_decoder(v, sliding_window=v.count_or_none("sliding_window"))


def _qwen2(v: Values) -> TransformerConfig:
    windowed = v.flag("use_sliding_window")
    full_layers = whole(v["max_window_layers"], f"{v.where}: max_window_layers", least=0)
    if full_layers >= v.count("num_hidden_layers"):
        windowed = False  # only layers from max_window_layers on use the window
    window = v.count_or_none("sliding_window") if windowed else None
    return _rotary_decoder(v, bias_qkv=True, sliding_window=window)


def _mixtral(v: Values) -> TransformerConfig:
    window = v.count_or_none("sliding_window")
    return _rotary_decoder(v, sliding_window=window, **experts.mixtral(v))


def _qwen2_moe(v: Values) -> TransformerConfig:
    return replace(_qwen2(v), **experts.qwen2_moe(v))


def _deepseek(v: Values) -> TransformerConfig:
    return _rotary_decoder(v, **experts.deepseek(v))


def _rope(v: Values) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling, from the older pair of keys or the newer `rope_parameters`."""
    merged = v["rope_parameters"]
    key = "rope_scaling" if merged is None else "rope_parameters"
    scaling = v[key]
    if scaling is None:
        return v.number("rope_theta"), None
    if not isinstance(scaling, dict):
        raise v.error(key, "null or an object")
    inner = Values(v.name, v.family, f"{v.where}: {key}", dict(scaling))
    inner.values.setdefault("rope_theta", v["rope_theta"])
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    kinds = FAMILY_ROPE.get(v.family, ("default", "linear", "llama3"))
    if not isinstance(kind, str) or kind not in kinds:
        raise AccelsimError(f"{v.where}: {key} of type {shown(kind)}; accepted: {listed(kinds)}")
    wanted = ROPE_KEYS[kind]
    for name in scaling:
        if name not in (*wanted, "rope_type", "type", "rope_theta"):
            raise AccelsimError(
                f"{v.where}: {key} has an unknown key '{name}'{did_you_mean(name, wanted)}"
            )
    for name in wanted:
        if name not in scaling:
            raise AccelsimError(f"{v.where}: {key} of type '{kind}' lacks '{name}'")
    return inner.number("rope_theta"), _scaling(inner, kind)


def _scaling(inner: Values, kind: str) -> RopeScaling | None:
    if kind == "default":
        return None
    if inner.number("factor") <= 0:
        raise inner.error("factor", "a number above 0")
    if kind == "linear":
        return RopeScaling("linear", inner.number("factor"))
    if kind == "yarn":
        return _yarn(inner)
    low, high = inner.number("low_freq_factor"), inner.number("high_freq_factor")
    if high <= low:
        raise inner.error("high_freq_factor", f"a number above low_freq_factor {low}")
    positions = inner.count("original_max_position_embeddings")
    return RopeScaling("llama3", inner.number("factor"), low, high, positions)


def _yarn(inner: Values) -> RopeScaling:
    slow, fast = inner.number("beta_slow"), inner.number("beta_fast")
    if not 0 < slow < fast:
        raise inner.error("beta_fast", f"a number above beta_slow {slow}, both above 0")
    if inner.number("mscale") != inner.number("mscale_all_dim"):
        raise inner.error("mscale", "the value of mscale_all_dim (tables of amplitude 1)")
    positions = inner.count("original_max_position_embeddings")
    mscale = inner.number("mscale_all_dim")
    return RopeScaling("yarn", inner.number("factor"), slow, fast, positions, mscale)


READERS: dict[str, Callable[[Values], TransformerConfig]] = {
    "gpt2": _gpt2,
    "opt": _opt,
    "bert": _bert,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
}
"""Per model_type: from the values, defaults filled in, to the normalised config."""
