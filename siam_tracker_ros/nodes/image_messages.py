"""sensor_msgs/Image and sensor_msgs/CompressedImage as pictures.

The messages' fields are only read, so nothing of ROS is imported here, except cv_bridge for
encodings that are not known here, where it is installed and works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from siam_tracker_ros.geometry import ArrayPicture, Picture
from siam_tracker_ros.geometry.pictures import UInt8Array
from siam_tracker_ros.nodes.compressed import compressed_size, decode
from siam_tracker_ros.nodes.encodings import Bayer, Grey, Lazy, PackedColour, Yuv420, Yuv422
from siam_tracker_ros.nodes.errors import ImageError

MAX_SIDE = 65_535
MAX_PIXELS = 1 << 27
"""Larger pictures are taken for damaged messages."""

Make = Callable[[UInt8Array, int, int, int, bool], Picture]


@dataclass(frozen=True)
class _Encoding:
    """How an encoding lies in memory."""

    pixel_bytes: int  # of a row, per pixel
    make: Make
    half_rows: int = 2  # rows of data for each row of pixels, times two
    even_width: bool = False
    even_height: bool = False


def _packed(channels: int, bgr: bool) -> _Encoding:
    return _Encoding(
        channels, lambda d, w, h, s, big: PackedColour(d, w, h, s, channels=channels, bgr=bgr)
    )


def _yuv422(code: int) -> _Encoding:
    return _Encoding(2, lambda d, w, h, s, big: Yuv422(d, w, h, s, code=code), even_width=True)


def _yuv420(code: int) -> _Encoding:
    return _Encoding(
        1,
        lambda d, w, h, s, big: Yuv420(d, w, h, s, code=code),
        half_rows=3,
        even_width=True,
        even_height=True,
    )


def _bayer(code: int) -> _Encoding:
    return _Encoding(1, lambda d, w, h, s, big: Bayer(d, w, h, s, code=code))


_MONO8 = _Encoding(1, lambda d, w, h, s, big: Grey(d, w, h, s))
# The more significant byte of a brightness is brightness >> 8: a view, no arithmetic.
_MONO16 = _Encoding(2, lambda d, w, h, s, big: Grey(d, w, h, s, size=2, byte=0 if big else 1))
_UYVY = _yuv422(cv2.COLOR_YUV2RGB_UYVY)
_YUYV = _yuv422(cv2.COLOR_YUV2RGB_YUY2)

ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _packed(3, bgr=False),
    "bgr8": _packed(3, bgr=True),
    "rgba8": _packed(4, bgr=False),
    "bgra8": _packed(4, bgr=True),
    "8UC3": _packed(3, bgr=True),
    "8UC4": _packed(4, bgr=True),
    "mono8": _MONO8,
    "8UC1": _MONO8,
    "mono16": _MONO16,
    "16UC1": _MONO16,
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _yuv420(cv2.COLOR_YUV2RGB_NV12),
    "nv21": _yuv420(cv2.COLOR_YUV2RGB_NV21),
    # ROS names the first four pixels, OpenCV (in the names that all versions have) those one row
    # and one column on.
    "bayer_rggb8": _bayer(cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _bayer(cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _bayer(cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _bayer(cv2.COLOR_BayerGB2RGB),
}


def picture_from_image(message: Any) -> Picture:
    """Return the picture of a sensor_msgs/Image, on the message's own bytes.

    Raises:
        ImageError: unknown encoding, no pixels or absurdly many, ``step`` shorter than a row, too
            little data.
    """
    width, height, step = int(message.width), int(message.height), int(message.step)
    encoding = ENCODINGS.get(message.encoding)
    _check_size(width, height)
    if encoding is None:
        return _by_cv_bridge(message)
    if (encoding.even_width and width % 2) or (encoding.even_height and height % 2):
        raise ImageError(
            f"a {message.encoding} image cannot be {width} x {height}: "
            "its pixels share colours in pairs"
        )
    row = width * encoding.pixel_bytes
    if step < row:
        raise ImageError(
            f"step = {step} is shorter than a row of {width} {message.encoding} pixels "
            f"({row} bytes)"
        )
    data = np.frombuffer(message.data, np.uint8)
    needed = height * encoding.half_rows // 2 * step
    if data.size < needed:
        raise ImageError(
            f"data has {data.size} bytes, but a {width} x {height} {message.encoding} image with "
            f"step = {step} needs {needed}"
        )
    return encoding.make(data, width, height, step, bool(message.is_bigendian))


def picture_from_compressed(message: Any) -> Picture:
    """Return the picture of a sensor_msgs/CompressedImage, decoded when it is first read.

    Raises:
        ImageError: neither JPEG nor PNG, truncated, no pixels or absurdly many. Reading it raises
            ImageError where only the decoder finds the damage.
    """
    if "compressedDepth" in message.format:
        raise ImageError(f"format {message.format!r} is a depth image; a picture is needed")
    data = bytes(message.data)
    width, height = compressed_size(data)
    _check_size(width, height)
    return Lazy(width, height, lambda: _decoded(data, width, height))


def _decoded(data: bytes, width: int, height: int) -> Picture:
    pixels = decode(data)
    if pixels.shape[:2] != (height, width):
        raise ImageError(
            f"the compressed image announces {width} x {height} but holds "
            f"{pixels.shape[1]} x {pixels.shape[0]}"
        )
    return ArrayPicture(pixels, "bgr")


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise ImageError(f"the image has no pixels: {width} x {height}")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(f"the image cannot be that large: {width} x {height}")


def _by_cv_bridge(message: Any) -> Picture:
    """Let cv_bridge convert an encoding that is not known here."""
    known = ", ".join(ENCODINGS)
    refusal = f"encoding {message.encoding!r} is not supported; known are {known}"
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # built for another NumPy it raises more than ImportError
        raise ImageError(refusal) from error
    try:
        pixels = CvBridge().imgmsg_to_cv2(message, "rgb8")
    except Exception as error:
        raise ImageError(f"{refusal}; cv_bridge says: {error}") from error
    return ArrayPicture(np.asarray(pixels, dtype=np.uint8), "rgb")
