"""What operators that slide a window over images have in common: convolution and pooling."""

from __future__ import annotations

from accelsim.workload._words import whole
from accelsim.workload.operator_base import Operator


class Windowed(Operator):
    """A window of fh x fw over NHWC images, out = floor((in + padding - window) / stride) + 1.

    `stride` is (vertical, horizontal), `padding` at (top, bottom, left, right).
    """

    batch: int
    h: int
    w: int
    fh: int
    fw: int
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]

    def check_window(self) -> None:
        """Raise AccelsimError where stride, padding and window do not fit the image."""
        for step in self.stride:
            whole(step, f"{self}: stride")
        for zeros in self.padding:
            whole(zeros, f"{self}: padding", least=0)
        top, bottom, left, right = self.padding
        if self.fh > self.h + top + bottom or self.fw > self.w + left + right:
            raise self.error(
                f"filter {self.fh}x{self.fw} is larger than the padded input "
                f"{self.h + top + bottom}x{self.w + left + right}"
            )

    @property
    def channels_in(self) -> int:
        """Channels of the images."""
        raise NotImplementedError("abstract: every kind says its own")

    @property
    def out_h(self) -> int:
        """Output rows."""
        return (self.h + self.padding[0] + self.padding[1] - self.fh) // self.stride[0] + 1

    @property
    def out_w(self) -> int:
        """Output columns."""
        return (self.w + self.padding[2] + self.padding[3] - self.fw) // self.stride[1] + 1
