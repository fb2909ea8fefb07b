"""Networks over images as they are trained: convolution, batch norm with the batch's statistics,
ReLU, pooling, each an operator of its own; transformers in vision_transformer.

    resnet9               the CIFAR-10 network of DAWNBench (D. Page, How to train your ResNet,
                          2018, without the scale of 1/8 behind the classifier)
    resnet18, resnet50    He et al., CVPR 2016; the stride of a bottleneck in its 3 x 3 convolution,
                          as in torchvision
    resnet18-cifar        the same blocks behind a 3 x 3 convolution, for 32 x 32 images
    vgg19                 Simonyan and Zisserman, ICLR 2015, configuration E, without batch norm

A residual block is a layer, so that each is simulated by itself and equal ones once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from accelsim.workload.graph import Graph
from accelsim.workload.operators import (
    Activation,
    BatchNorm,
    ColumnSum,
    Conv2d,
    Gemm,
    Operator,
    Pool2d,
    Residual,
)
from accelsim.workload.tensors import TensorSpec
from accelsim.workload.vision_transformer import VisionSize, vision_transformer

EPS = 1e-5


class ImageBuilder:
    """Collects the tensors and operators of a network over images [batch, h, w, channels]."""

    def __init__(self, batch: int, dtype: str) -> None:
        self.batch, self.dtype = batch, dtype
        self.tensors: dict[str, TensorSpec] = {}
        self.operators: list[Operator] = []
        self.layer: int | None = None

    def tensor(self, name: str, shape: tuple[int, ...], role: str, dtype: str = "") -> str:
        """Declare a tensor and return its name."""
        self.tensors[name] = TensorSpec(name, shape, dtype or self.dtype, role)
        return name

    def emit(self, operator: Operator, dtype: str = "", shape: tuple[int, ...] = ()) -> str:
        """Append an operator and declare its result."""
        self.operators.append(replace(operator, layer=self.layer))
        return self.tensor(
            operator.output, shape or operator.output_shapes()[0], "activation", dtype
        )

    def conv(
        self, name: str, x: str, cout: int, size: int = 3, stride: int = 1, *, bias: bool = False
    ) -> str:
        """A convolution that keeps the size of the image, but for its stride."""
        _, h, w, cin = self.tensors[x].shape
        inputs = [x, self.tensor(f"{name}.weight", (size, size, cin, cout), "weight")]
        if bias:
            inputs.append(self.tensor(f"{name}.bias", (cout,), "weight"))
        return self.emit(
            Conv2d(
                name, tuple(inputs), (f"{name}.out",), self.batch, h, w, cin, size, size, cout,
                (stride, stride), ((size - 1) // 2,) * 4,
            )
        )  # fmt: skip

    def norm(self, name: str, x: str) -> str:
        """Batch norm by the statistics of this batch."""
        shape = self.tensors[x].shape
        rows, cols = self.tensors[x].elements // shape[-1], shape[-1]
        share = 1.0 / rows
        mean = self.emit(
            ColumnSum(f"{name}.mean", (x,), (f"{name}.mean.out",), rows, cols, scale=share), "fp32"
        )
        variance = self.emit(
            ColumnSum(
                f"{name}.variance", (x, mean), (f"{name}.variance.out",), rows, cols,
                function="variance", scale=share,
            ),
            "fp32",
        )  # fmt: skip
        learned = [self.tensor(f"{name}.{what}", (cols,), "weight") for what in ("weight", "bias")]
        operands = (x, mean, variance, *learned)
        return self.emit(
            BatchNorm(name, operands, (f"{name}.out",), rows, cols, eps=EPS), shape=shape
        )

    def relu(self, name: str, x: str) -> str:
        """The larger of each element and zero."""
        shape = self.tensors[x].shape
        rows = self.tensors[x].elements // shape[-1]
        step = Activation(name, (x,), (f"{name}.out",), rows, shape[-1], function="relu")
        return self.emit(step, shape=shape)

    def add(self, name: str, a: str, b: str) -> str:
        """The end of a residual branch."""
        shape = self.tensors[a].shape
        rows = self.tensors[a].elements // shape[-1]
        return self.emit(Residual(name, (a, b), (f"{name}.out",), rows, shape[-1]), shape=shape)

    def pool(
        self, name: str, x: str, function: str, size: int, stride: int = 1, padding: int = 0
    ) -> str:
        """Largest value or mean of windows."""
        _, h, w, channels = self.tensors[x].shape
        return self.emit(
            Pool2d(
                name, (x,), (f"{name}.out",), self.batch, h, w, channels, size, size, function,
                (stride, stride), (padding,) * 4,
            )
        )  # fmt: skip

    def flat(self, name: str, x: str, n: int, *, bias: bool = True) -> str:
        """A fully connected layer on all that there is of each image."""
        spec = self.tensors[x]
        k = spec.elements // self.batch
        inputs = [x, self.tensor(f"{name}.weight", (k, n), "weight")]
        if bias:
            inputs.append(self.tensor(f"{name}.bias", (n,), "weight"))
        return self.emit(Gemm(name, tuple(inputs), (f"{name}.out",), self.batch, n, k))

    def convolved(self, name: str, x: str, cout: int, size: int = 3, stride: int = 1) -> str:
        """Convolution, batch norm."""
        return self.norm(f"{name}_bn", self.conv(name, x, cout, size, stride))

    def activated(self, name: str, x: str, cout: int, size: int = 3, stride: int = 1) -> str:
        """Convolution, batch norm, ReLU."""
        return self.relu(f"{name}_relu", self.convolved(name, x, cout, size, stride))

    def finish(self, result: str) -> None:
        """Make the last result the logits of the network."""
        spec = self.tensors.pop(result)
        self.tensors["logits"] = replace(spec, name="logits", role="output")
        self.operators[-1] = replace(self.operators[-1], outputs=("logits",))

    def next_layer(self) -> str:
        """Begin a layer; its prefix."""
        self.layer = 0 if self.layer is None else self.layer + 1
        return f"layer{self.layer}"


def _basic(build: ImageBuilder, x: str, width: int, stride: int) -> str:
    """Two 3 x 3 convolutions beside a skip."""
    name, skipped = build.next_layer(), x
    y = build.activated(f"{name}.conv1", x, width, 3, stride)
    y = build.convolved(f"{name}.conv2", y, width)
    if stride > 1 or build.tensors[x].shape[-1] != width:
        skipped = build.convolved(f"{name}.downsample", x, width, 1, stride)
    return build.relu(f"{name}.relu", build.add(f"{name}.add", y, skipped))


def _bottleneck(build: ImageBuilder, x: str, width: int, stride: int) -> str:
    """1 x 1 to a quarter of the channels, 3 x 3, and 1 x 1 back, beside a skip."""
    name, skipped = build.next_layer(), x
    y = build.activated(f"{name}.conv1", x, width, 1)
    y = build.activated(f"{name}.conv2", y, width, 3, stride)
    y = build.convolved(f"{name}.conv3", y, 4 * width, 1)
    if stride > 1 or build.tensors[x].shape[-1] != 4 * width:
        skipped = build.convolved(f"{name}.downsample", x, 4 * width, 1, stride)
    return build.relu(f"{name}.relu", build.add(f"{name}.add", y, skipped))


def _resnet(build: ImageBuilder, x: str, block: Callable[..., str], counts: tuple[int, ...]) -> str:
    """Stages of blocks, each of half the size and twice the width of the one before."""
    for stage, count in enumerate(counts):
        for i in range(count):
            x = block(build, x, 64 << stage, 2 if stage and not i else 1)
    build.layer = None
    return build.pool("avgpool", x, "mean", build.tensors[x].shape[1])


def _resnet18(build: ImageBuilder, x: str) -> str:
    x = build.pool("maxpool", build.activated("conv1", x, 64, 7, 2), "max", 3, 2, 1)
    return build.flat("fc", _resnet(build, x, _basic, (2, 2, 2, 2)), 1000)


def _resnet50(build: ImageBuilder, x: str) -> str:
    x = build.pool("maxpool", build.activated("conv1", x, 64, 7, 2), "max", 3, 2, 1)
    return build.flat("fc", _resnet(build, x, _bottleneck, (3, 4, 6, 3)), 1000)


def _resnet18_cifar(build: ImageBuilder, x: str) -> str:
    x = _resnet(build, build.activated("conv1", x, 64), _basic, (2, 2, 2, 2))
    return build.flat("fc", x, 10)


def _resnet9(build: ImageBuilder, x: str) -> str:
    """Three halvings by pooling, two residual blocks of two convolutions."""
    x = build.activated("prep", x, 64)
    for width, residual in ((128, True), (256, False), (512, True)):
        name = build.next_layer()
        x = build.activated(f"{name}.conv", x, width)
        x = build.pool(f"{name}.pool", x, "max", 2, 2)
        if residual:
            y = build.activated(f"{name}.res1", x, width)
            x = build.add(f"{name}.add", x, build.activated(f"{name}.res2", y, width))
    build.layer = None
    return build.flat("linear", build.pool("maxpool", x, "max", 4, 4), 10, bias=False)


def _vgg19(build: ImageBuilder, x: str) -> str:
    """Five stages of 3 x 3 convolutions, a pooling behind each, three fully connected layers."""
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        name = build.next_layer()
        for i in range(count):
            x = build.conv(f"{name}.conv{i}", x, width, bias=True)
            x = build.relu(f"{name}.relu{i}", x)
        x = build.pool(f"{name}.pool", x, "max", 2, 2)
    build.layer = None
    for i in (1, 2):
        x = build.relu(f"fc{i}_relu", build.flat(f"fc{i}", x, 4096))
    return build.flat("fc3", x, 1000)


@dataclass(frozen=True)
class ImageNetwork:
    """A network over square images of three channels: how it is built, or a transformer's size."""

    description: str
    size: int
    build: Callable[[ImageBuilder, str], str] | VisionSize

    def graph(self, name: str, batch: int, dtype: str, side: int, *, trains: bool) -> Graph:
        """The forward pass; ``trains``: with all that a backward pass needs."""
        if isinstance(self.build, VisionSize):
            return vision_transformer(name, self.build, batch, dtype, side, trains=trains)
        build = ImageBuilder(batch, dtype)
        build.finish(self.build(build, build.tensor("image", (batch, side, side, 3), "input")))
        return Graph(name, build.tensors, tuple(build.operators))


NETWORKS: dict[str, ImageNetwork] = {
    "resnet9": ImageNetwork("ResNet-9 for 32 x 32 images (DAWNBench)", 32, _resnet9),
    "resnet18": ImageNetwork("ResNet-18 for 224 x 224 images", 224, _resnet18),
    "resnet18-cifar": ImageNetwork("ResNet-18 for 32 x 32 images", 32, _resnet18_cifar),
    "resnet50": ImageNetwork("ResNet-50 for 224 x 224 images", 224, _resnet50),
    "vgg19": ImageNetwork("VGG-19 for 224 x 224 images", 224, _vgg19),
    "vit-small": ImageNetwork("ViT-S/16 for 224 x 224 images", 224, VisionSize(384, 12, 6)),
    "vit-base": ImageNetwork("ViT-B/16 for 224 x 224 images", 224, VisionSize(768, 12, 12)),
    "vit-large": ImageNetwork("ViT-L/16 for 224 x 224 images", 224, VisionSize(1024, 24, 16)),
}


def image_network(
    name: str, batch: int, dtype: str, size: int = 0, *, trains: bool = False
) -> Graph:
    """The forward pass of a network, for images of another ``size`` if one is given."""
    network = NETWORKS[name]
    graph = network.graph(name, batch, dtype, size or network.size, trains=trains)
    settings: dict[str, str | int] = {"batch": batch, "dtype": dtype}
    if size:
        settings["size"] = size
    return replace(graph, settings=settings)
