"""What a crop is cut from: a picture that can hand out RGB windows of itself.

Cameras send many encodings. A :class:`Picture` converts only the window that is asked for, so that
a crop of a 4K frame costs what the crop costs.
"""

from __future__ import annotations

from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

Rgb = tuple[int, int, int]
UInt8Array = npt.NDArray[np.uint8]


class Picture(Protocol):
    """An image that can be read window by window."""

    @property
    def width(self) -> int:
        """Number of columns."""
        ...

    @property
    def height(self) -> int:
        """Number of rows."""
        ...

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return ``uint8 [y1-y0, x1-x0, 3]`` RGB of columns x0..x1-1 and rows y0..y1-1."""
        ...

    def mean_rgb(self) -> Rgb:
        """Return the mean colour, rounded: what fills a crop outside the picture."""
        ...


class ArrayPicture:
    """A :class:`Picture` on an array already in memory; nothing is copied.

    Args:
        array: ``uint8 [H,W,3]`` in ``order``, or ``uint8 [H,W]`` with order ``"gray"``.
        order: channel order of ``array``.

    Raises:
        ValueError: if the array has another dtype or shape, or no pixels.
    """

    def __init__(self, array: UInt8Array, order: Literal["rgb", "bgr", "gray"] = "rgb") -> None:
        wanted = 2 if order == "gray" else 3
        if array.dtype != np.uint8 or array.ndim != wanted or (wanted == 3 and array.shape[2] != 3):
            raise ValueError(
                f"a {order} picture must be uint8 {'[H,W]' if wanted == 2 else '[H,W,3]'}, "
                f"got {array.dtype} {list(array.shape)}"
            )
        if array.size == 0:
            raise ValueError(f"a picture needs pixels, got shape {list(array.shape)}")
        self.array = array
        self.order = order

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.array.shape[1])

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.array.shape[0])

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return the window as RGB (a view where the array is RGB)."""
        window = self.array[y0:y1, x0:x1]
        if self.order == "rgb":
            return window
        code = cv2.COLOR_BGR2RGB if self.order == "bgr" else cv2.COLOR_GRAY2RGB
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(window), code), dtype=np.uint8)

    def mean_rgb(self) -> Rgb:
        """Return the mean colour of a grid of at most 256 x 256 pixels."""
        return mean_colour(
            self.array[:: self.height // 256 + 1, :: self.width // 256 + 1], self.order
        )


def mean_colour(samples: UInt8Array, order: str = "rgb") -> Rgb:
    """Return the rounded mean of ``uint8 [h,w,3]`` (or ``[h,w]``) samples as RGB."""
    mean = np.atleast_1d(samples.mean(axis=(0, 1), dtype=np.float64))
    if mean.size == 1:
        mean = np.repeat(mean, 3)
    if order == "bgr":
        mean = mean[::-1]
    r, g, b = (round(float(v)) for v in mean)
    return (r, g, b)
