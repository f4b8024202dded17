"""JPEG and PNG bytes: their size and completeness without decoding, and the decoded picture.

A decoder fills what is missing of a truncated JPEG with grey and calls it a success; a tracker
would follow that.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

from siam_tracker_ros.geometry.pictures import UInt8Array
from siam_tracker_ros.nodes.errors import ImageError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8"
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers without a length field
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def compressed_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of a complete JPEG or PNG file.

    Raises:
        ImageError: if it is neither, or ends too early.
    """
    if not data:
        raise ImageError("the compressed image has no data")
    if data.startswith(_JPEG_START):
        return _jpeg_size(data)
    if data.startswith(_PNG_START):
        return _png_size(data)
    raise ImageError(
        f"the compressed image is neither JPEG nor PNG: it begins with {data[:8].hex(' ')}"
    )


def decode(data: bytes) -> UInt8Array:
    """Return ``uint8 [H,W,3]`` BGR; the orientation tag is ignored, as in CameraInfo.

    Raises:
        ImageError: if the decoder refuses it.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"the compressed image cannot be decoded: {error.err}") from error
    if bgr is None:
        raise ImageError(f"the compressed image cannot be decoded ({len(data)} bytes)")
    return np.asarray(bgr, dtype=np.uint8)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    size, at, end = None, 2, len(data)
    while at + 4 <= end:
        if data[at] != 0xFF:
            raise ImageError(f"the JPEG image is damaged at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF or marker in _NO_LENGTH:  # padding before a marker, or nothing behind it
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAME_HEADERS and at + 9 <= end:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        at += 2 + length
        if marker == 0xDA:  # the scan's data follow; inside them no end marker can occur
            if size is None:
                raise ImageError("the JPEG image is damaged: it has no frame header")
            if data.find(b"\xff\xd9", at) < 0:
                break
            return size
    raise ImageError(f"the JPEG image is truncated: {end} bytes without an end")


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ImageError(f"the PNG image is truncated: {len(data)} bytes")
    width, height = struct.unpack_from(">II", data, 16)
    at = len(_PNG_START)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IEND":
            return int(width), int(height)
        at += 12 + length
    raise ImageError(f"the PNG image is truncated: {len(data)} bytes without an end")
