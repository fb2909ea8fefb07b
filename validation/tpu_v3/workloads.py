"""What the names of the measured workloads mean.

Shapes and operand orders are those of PyTorchSim's experiments (experiments/*.py and
artifact/cycle_validation/run_cycle.sh of the artifact): ResNets at batch 1, BERT as one block on
512 tokens, convolutions with a bias.
"""

from __future__ import annotations

from accelsim.errors import AccelsimError

DTYPE = "fp32"

# Hidden size of each BERT; heads are 64 wide, the feed-forward part four times as wide.
BERT = {"bert_base": 768, "bert_large": 1024, "bert_xlarge": 2048}
HEAD = 64

# Kind of a workload: its form here, and the names of the numbers behind it, in order.
FORMS = {
    "gemm": ("gemm", ("m", "k", "n")),
    "conv": ("conv2d", ("batch", "h", "w", "cin", "cout", "fh", "stride", "padding")),
    "layernorm": ("layernorm", ("rows", "cols")),
    "softmax": ("softmax", ("rows", "cols")),
    "attention": ("attention", ("heads", "q", "d")),
}


def workload_of(name: str) -> str:
    """The workload behind a name of the table: "gemm_256x256x256", "resnet50", "bert_base"."""
    if name.startswith("resnet"):
        return f"{name}:batch=1,dtype={DTYPE}"
    if name in BERT:
        hidden = BERT[name]
        model = f"hidden={hidden},heads={hidden // HEAD},head={HEAD},ffn={4 * hidden}"
        return f"encoder-block:tokens=512,{model},dtype={DTYPE}"
    kind, _, numbers = name.partition("_")
    if kind not in FORMS:
        raise AccelsimError(f"unknown workload {name!r}; known kinds: {', '.join(FORMS)}")
    form, keys = FORMS[kind]
    sizes = dict(zip(keys, numbers.split("x"), strict=True))
    if kind == "conv":
        sizes |= {"fw": sizes["fh"], "bias": "true"}
    if kind == "attention":
        sizes["kv"] = sizes["q"]
    return f"{form}:{','.join(f'{k}={v}' for k, v in sizes.items())},dtype={DTYPE}"
