"""Pictures on the raw bytes of a camera's image, without copying them.

Each class is a :class:`~siam_tracker_ros.geometry.Picture`: only the window that is asked for is
converted, so a 4K frame costs what its crop costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import cv2
import numpy as np

from siam_tracker_ros.geometry import Picture, Rgb, mean_colour
from siam_tracker_ros.geometry.pictures import UInt8Array


class Plane(ABC):
    """Base of all: rows of bytes, ``step`` apart.

    Args:
        data: the image's bytes; held, never copied.
        width, height: pixels.
        step: bytes from one row to the next.
    """

    def __init__(self, data: UInt8Array, width: int, height: int, step: int) -> None:
        self._data = data
        self._width = width
        self._height = height
        self._step = step

    @property
    def width(self) -> int:
        """Number of columns."""
        return self._width

    @property
    def height(self) -> int:
        """Number of rows."""
        return self._height

    @abstractmethod
    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return ``uint8 [y1-y0, x1-x0, 3]`` RGB of columns x0..x1-1, rows y0..y1-1."""

    def mean_rgb(self) -> Rgb:
        """Return the mean colour of tiles spread evenly over the picture."""
        return mean_of_tiles(self)

    def _view(self, channels: int, height: int, width: int, row: int = 0) -> UInt8Array:
        """Return ``uint8 [height, width, channels]`` on the bytes from row ``row`` on."""
        return np.ndarray(
            (height, width, channels),
            np.uint8,
            self._data,
            offset=row * self._step,
            strides=(self._step, channels, 1),
        )


class PackedColour(Plane):
    """Three or four bytes a pixel: rgb8, bgr8, rgba8, bgra8."""

    def __init__(
        self, data: UInt8Array, width: int, height: int, step: int, *, channels: int, bgr: bool
    ) -> None:
        super().__init__(data, width, height, step)
        self._pixels = self._view(channels, height, width)
        self._bgr = bgr
        to_rgb = {
            (3, True): cv2.COLOR_BGR2RGB,
            (4, True): cv2.COLOR_BGRA2RGB,
            (4, False): cv2.COLOR_RGBA2RGB,
        }
        self._code = to_rgb.get((channels, bgr))

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return the window; a view where the image is RGB already."""
        window = self._pixels[y0:y1, x0:x1]
        return window if self._code is None else _converted(window, self._code)

    def mean_rgb(self) -> Rgb:
        """Return the mean colour of a grid of at most 256 x 256 pixels."""
        samples = _thinned(self._pixels)[..., :3]
        return mean_colour(samples, "bgr" if self._bgr else "rgb")


class Grey(Plane):
    """One brightness a pixel: mono8, and the more significant byte of mono16."""

    def __init__(
        self, data: UInt8Array, width: int, height: int, step: int, *, size: int = 1, byte: int = 0
    ) -> None:
        super().__init__(data, width, height, step)
        self._pixels: UInt8Array = self._view(size, height, width)[..., byte]

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return the window with the brightness in all three channels."""
        window = np.ascontiguousarray(self._pixels[y0:y1, x0:x1])
        return _converted(window, cv2.COLOR_GRAY2RGB)

    def mean_rgb(self) -> Rgb:
        """Return the mean of a grid of at most 256 x 256 pixels."""
        return mean_colour(_thinned(self._pixels), "gray")


class Yuv422(Plane):
    """Two pixels in four bytes: UYVY (``yuv422``) or YUYV (``yuv422_yuy2``)."""

    def __init__(self, data: UInt8Array, width: int, height: int, step: int, *, code: int) -> None:
        super().__init__(data, width, height, step)
        self._pixels = self._view(2, height, width)
        self._code = code

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return the window; pairs of pixels are converted together."""
        left, right = x0 - x0 % 2, x1 + x1 % 2
        whole = _converted(self._pixels[y0:y1, left:right], self._code)
        return whole[:, x0 - left : x1 - left]


class Yuv420(Plane):
    """A plane of brightness and, below it, one of interleaved colour at half size: nv12, nv21."""

    def __init__(self, data: UInt8Array, width: int, height: int, step: int, *, code: int) -> None:
        super().__init__(data, width, height, step)
        self._luma = self._view(1, height, width)[..., 0]
        self._chroma = self._view(2, height // 2, width // 2, row=height)
        self._code = code

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return the window; blocks of 2 x 2 pixels are converted together."""
        left, right, top, bottom = x0 - x0 % 2, x1 + x1 % 2, y0 - y0 % 2, y1 + y1 % 2
        luma = np.ascontiguousarray(self._luma[top:bottom, left:right])
        chroma = np.ascontiguousarray(self._chroma[top // 2 : bottom // 2, left // 2 : right // 2])
        whole = np.asarray(cv2.cvtColorTwoPlane(luma, chroma, self._code), dtype=np.uint8)
        return whole[y0 - top : y1 - top, x0 - left : x1 - left]


class Bayer(Plane):
    """A colour filter's mosaic, one byte a pixel."""

    MARGIN = 2
    """Pixels around a window that its interpolation needs, rounded up to whole cells."""

    def __init__(self, data: UInt8Array, width: int, height: int, step: int, *, code: int) -> None:
        super().__init__(data, width, height, step)
        self._pixels: UInt8Array = self._view(1, height, width)[..., 0]
        self._code = code

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return the window, interpolated as in the whole picture."""
        left, top = (max(0, v - v % 2 - self.MARGIN) for v in (x0, y0))
        right = min(self._width, x1 + x1 % 2 + self.MARGIN)
        bottom = min(self._height, y1 + y1 % 2 + self.MARGIN)
        mosaic = np.ascontiguousarray(self._pixels[top:bottom, left:right])
        return _converted(mosaic, self._code)[y0 - top : y1 - top, x0 - left : x1 - left]


class Lazy:
    """A picture that is made when it is first read; its size is known before."""

    def __init__(self, width: int, height: int, make: Callable[[], Picture]) -> None:
        self._width = width
        self._height = height
        self._make = make
        self._picture: Picture | None = None

    @property
    def width(self) -> int:
        """Number of columns."""
        return self._width

    @property
    def height(self) -> int:
        """Number of rows."""
        return self._height

    def rgb_region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Return the window of the picture that was made."""
        return self._made().rgb_region(x0, y0, x1, y1)

    def mean_rgb(self) -> Rgb:
        """Return the mean colour of the picture that was made."""
        return self._made().mean_rgb()

    def unread(self) -> Lazy:
        """Return the same picture as if it had never been read, without what was made of it."""
        return Lazy(self._width, self._height, self._make)

    def _made(self) -> Picture:
        if self._picture is None:
            self._picture = self._make()
        return self._picture


def mean_of_tiles(picture: Picture, tiles: int = 12, side: int = 16) -> Rgb:
    """Return the mean colour of a grid of windows spread evenly, or of all of a small picture.

    Args:
        picture: what to look at.
        tiles: windows in each direction.
        side: of a window, pixels.
    """
    width, height = picture.width, picture.height
    if width <= tiles * side and height <= tiles * side:
        return mean_colour(picture.rgb_region(0, 0, width, height))
    w, h = min(side, width), min(side, height)
    columns = np.unique(np.linspace(0, width - w, tiles).astype(int))
    rows = np.unique(np.linspace(0, height - h, tiles).astype(int))
    sums = np.zeros(3)
    for x in columns:
        for y in rows:
            window = picture.rgb_region(int(x), int(y), int(x) + w, int(y) + h)
            sums += window.sum(axis=(0, 1), dtype=np.float64)
    r, g, b = (round(float(v)) for v in sums / (len(columns) * len(rows) * w * h))
    return (r, g, b)


def _converted(window: UInt8Array, code: int) -> UInt8Array:
    if window.shape[:2] == (1, 1):  # OpenCV 4.5.4 refuses a single pixel of several channels
        return _converted(np.concatenate([window, window], axis=1), code)[:, :1]
    return np.asarray(cv2.cvtColor(window, code), dtype=np.uint8)


def _thinned(pixels: UInt8Array) -> UInt8Array:
    return pixels[:: pixels.shape[0] // 256 + 1, :: pixels.shape[1] // 256 + 1]
