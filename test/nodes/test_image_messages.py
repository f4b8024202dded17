"""Camera messages as pictures: every encoding against a reference, and what is refused."""

from __future__ import annotations

import array
import sys
import types
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from siam_tracker_ros.nodes.errors import ImageError
from siam_tracker_ros.nodes.image_messages import (
    ENCODINGS,
    picture_from_compressed,
    picture_from_image,
)

WIDTH, HEIGHT = 46, 34
WINDOWS = [
    (0, 0, WIDTH, HEIGHT),
    (7, 5, 20, 12),
    (1, 1, 2, 2),
    (0, 31, 45, 34),
    (45, 0, 46, 33),
    (10, 10, 31, 29),
]


def scene(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A smooth colourful RGB picture."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3))
    return cv2.resize(small.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def message(encoding: str, rows: np.ndarray, width: int, height: int, pad: int = 0) -> Any:
    """An Image whose rows (uint8 [n, bytes]) are ``pad`` bytes apart, filled with rubbish."""
    padded = np.full((rows.shape[0], rows.shape[1] + pad), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return SimpleNamespace(
        encoding=encoding,
        width=width,
        height=height,
        step=padded.shape[1],
        is_bigendian=0,
        data=array.array("B", padded.tobytes()),
    )


def luma(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def to_yuv(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 in studio range, what cameras send."""
    matrix = np.array([[66, 129, 25], [-38, -74, 112], [112, -94, -18]]) / 256
    return np.rint(rgb @ matrix.T + (16, 128, 128)).clip(0, 255).astype(np.uint8)


def uyvy(rgb: np.ndarray, order: str) -> np.ndarray:
    yuv = to_yuv(rgb)
    u, v = yuv[:, ::2, 1], yuv[:, ::2, 2]
    out = np.empty((*rgb.shape[:2], 2), np.uint8)
    brightness, colour = (1, 0) if order == "uyvy" else (0, 1)
    out[..., brightness] = yuv[..., 0]
    out[:, ::2, colour], out[:, 1::2, colour] = u, v
    return out


def nv(rgb: np.ndarray, order: str) -> np.ndarray:
    yuv = to_yuv(rgb)
    first, second = (1, 2) if order == "nv12" else (2, 1)
    colour = np.stack([yuv[::2, ::2, first], yuv[::2, ::2, second]], axis=-1)
    return np.vstack([yuv[..., 0], colour.reshape(rgb.shape[0] // 2, rgb.shape[1])])


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    out = np.empty(rgb.shape[:2], np.uint8)
    for i, letter in enumerate(pattern):
        out[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(letter)]
    return out


def rows_of(encoding: str, rgb: np.ndarray) -> np.ndarray:
    """The bytes of ``rgb`` in ``encoding``, uint8 [rows, bytes]."""
    alpha = np.full((*rgb.shape[:2], 1), 17, np.uint8)
    made = {
        "rgb8": lambda: rgb,
        "bgr8": lambda: rgb[..., ::-1],
        "8UC3": lambda: rgb[..., ::-1],
        "rgba8": lambda: np.dstack([rgb, alpha]),
        "bgra8": lambda: np.dstack([rgb[..., ::-1], alpha]),
        "8UC4": lambda: np.dstack([rgb[..., ::-1], alpha]),
        "mono8": lambda: luma(rgb),
        "8UC1": lambda: luma(rgb),
        "mono16": lambda: (luma(rgb).astype("<u2") * 256 + 77).view(np.uint8),
        "16UC1": lambda: (luma(rgb).astype("<u2") * 256 + 77).view(np.uint8),
        "yuv422": lambda: uyvy(rgb, "uyvy"),
        "uyvy": lambda: uyvy(rgb, "uyvy"),
        "yuv422_yuy2": lambda: uyvy(rgb, "yuyv"),
        "yuyv": lambda: uyvy(rgb, "yuyv"),
        "nv12": lambda: nv(rgb, "nv12"),
        "nv21": lambda: nv(rgb, "nv21"),
    }
    pixels = made[encoding]() if encoding in made else mosaic(rgb, encoding.split("_")[1][:4])
    return np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)


def reference(encoding: str, rgb: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The RGB picture that OpenCV makes of the whole image."""
    if encoding in ("rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4"):
        return rgb
    if encoding in ("mono8", "8UC1", "mono16", "16UC1"):
        return np.repeat(luma(rgb)[..., None], 3, axis=2)
    if encoding in ("yuv422", "uyvy"):
        return cv2.cvtColor(rows.reshape(*rgb.shape[:2], 2), cv2.COLOR_YUV2RGB_UYVY)
    if encoding in ("yuv422_yuy2", "yuyv"):
        return cv2.cvtColor(rows.reshape(*rgb.shape[:2], 2), cv2.COLOR_YUV2RGB_YUYV)
    if encoding in ("nv12", "nv21"):
        return cv2.cvtColor(rows, getattr(cv2, f"COLOR_YUV2RGB_{encoding.upper()}"))
    # demosaicing is judged against the scene below; here: that a window equals the whole
    opencv = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}
    pattern = opencv[encoding.split("_")[1][:4]]
    return cv2.cvtColor(rows, getattr(cv2, f"COLOR_Bayer{pattern}2RGB"))


@pytest.mark.parametrize("pad", [0, 1, 13])
@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_every_window_is_as_in_the_whole_reference(encoding: str, pad: int) -> None:
    rgb = scene()
    rows = rows_of(encoding, rgb)
    picture = picture_from_image(message(encoding, rows, WIDTH, HEIGHT, pad))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    whole = reference(encoding, rgb, rows)
    for x0, y0, x1, y1 in WINDOWS:
        window = picture.rgb_region(x0, y0, x1, y1)
        assert window.dtype == np.uint8
        np.testing.assert_array_equal(window, whole[y0:y1, x0:x1])


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_colours_are_those_of_the_scene(encoding: str) -> None:
    rgb = scene(1)
    rgb[...] = (rgb * 0.25).astype(np.uint8) + np.array([140, 40, 60], np.uint8)
    picture = picture_from_image(message(encoding, rows_of(encoding, rgb), WIDTH, HEIGHT, 3))
    grey = encoding in ("mono8", "8UC1", "mono16", "16UC1")
    wanted = np.repeat(luma(rgb)[..., None], 3, axis=2) if grey else rgb
    difference = picture.rgb_region(4, 4, 40, 30).astype(int) - wanted[4:30, 4:40]
    assert np.abs(difference).mean() < 12
    assert np.abs(np.array(picture.mean_rgb()) - wanted.mean(axis=(0, 1))).max() < 4


def test_big_endian_brightness() -> None:
    brightness = luma(scene(2))
    rows = (brightness.astype(np.uint16) * 256 + 3).astype(">u2").view(np.uint8)
    image = message("mono16", rows, WIDTH, HEIGHT, 1)
    image.is_bigendian = 1
    window = picture_from_image(image).rgb_region(3, 2, 20, 30)
    np.testing.assert_array_equal(window[..., 0], brightness[2:30, 3:20])


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_the_message_is_not_copied(encoding: str) -> None:
    """What is written into the message afterwards is seen: the picture is a view of its bytes."""
    image = message(encoding, rows_of(encoding, scene(3)), WIDTH, HEIGHT, 2)
    picture = picture_from_image(image)
    before = picture.rgb_region(0, 0, WIDTH, HEIGHT).copy()
    np.frombuffer(image.data, np.uint8)[:] = 0
    assert not np.array_equal(picture.rgb_region(0, 0, WIDTH, HEIGHT), before)


def test_a_crop_of_a_large_image_costs_what_the_crop_costs() -> None:
    rgb = scene(4, 3840, 2160)
    for encoding in ("bgr8", "nv12", "bayer_rggb8", "yuyv"):
        rows = rows_of(encoding, rgb)
        picture = picture_from_image(message(encoding, rows, 3840, 2160))
        region = picture.rgb_region(1001, 501, 1301, 801)
        base = region if region.base is None else region.base
        assert base.nbytes < 2 * 300 * 300 * 3


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_a_small_image_with_another_size(encoding: str) -> None:
    rgb = scene(5, 12, 6)[:2, :4]
    rows = rows_of(encoding, rgb)
    picture = picture_from_image(message(encoding, rows, 4, 2, 5))
    assert picture.rgb_region(0, 0, 4, 2).shape == (2, 4, 3)
    assert len(picture.mean_rgb()) == 3


def changed(**changes: Any) -> Any:
    image = message("bgr8", rows_of("bgr8", scene()), WIDTH, HEIGHT)
    for name, value in changes.items():
        setattr(image, name, value)
    return image


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "32FC1"}, "'32FC1' is not supported"),
        ({"encoding": ""}, "'' is not supported"),
        ({"width": 0}, "no pixels: 0 x 34"),
        ({"height": 0, "data": array.array("B")}, "no pixels: 46 x 0"),
        ({"step": 0}, "step = 0 is shorter than a row of 46 bgr8 pixels (138 bytes)"),
        ({"step": 137}, "step = 137 is shorter"),
        ({"data": array.array("B", bytes(100))}, "data has 100 bytes"),
        ({"step": 139}, "needs 4726"),
        ({"data": array.array("B")}, "data has 0 bytes"),
        ({"width": 4_000_000_000}, "cannot be that large"),
        ({"width": 60_000, "height": 60_000}, "cannot be that large"),
        ({"encoding": "nv12", "height": 33}, "nv12 image cannot be 46 x 33"),
        ({"encoding": "yuyv", "width": 45}, "yuyv image cannot be 45 x 34"),
        ({"encoding": "nv12", "height": 104}, "data has 4692 bytes"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError) as error:
        picture_from_image(changed(**changes))
    assert words in str(error.value)


def test_cv_bridge_converts_what_is_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = scene(6)

    class CvBridge:
        def imgmsg_to_cv2(self, image: Any, encoding: str) -> np.ndarray:
            assert (image.encoding, encoding) == ("rgb16", "rgb8")
            return rgb

    monkeypatch.setitem(sys.modules, "cv_bridge", types.SimpleNamespace(CvBridge=CvBridge))
    picture = picture_from_image(changed(encoding="rgb16"))
    np.testing.assert_array_equal(picture.rgb_region(1, 2, 9, 8), rgb[2:8, 1:9])


def test_a_cv_bridge_that_does_not_load_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(ImageError, match="not supported; known are rgb8, bgr8"):
        picture_from_image(changed(encoding="rgb16"))


def compressed(suffix: str, rgb: np.ndarray | None = None) -> bytes:
    done, data = cv2.imencode(suffix, (scene(7) if rgb is None else rgb)[..., ::-1])
    assert done
    return data.tobytes()


def compressed_message(data: bytes, form: str = "jpeg") -> Any:
    return SimpleNamespace(format=form, data=array.array("B", data))


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".png", "png"), (".jpg", "jpeg"), (".jpg", "bgr8; jpeg compressed bgr8"), (".png", "wrong")],
)
def test_compressed(suffix: str, form: str) -> None:
    picture = picture_from_compressed(compressed_message(compressed(suffix), form))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    difference = picture.rgb_region(0, 0, WIDTH, HEIGHT).astype(int) - scene(7)
    assert np.abs(difference).mean() < (0.01 if suffix == ".png" else 12)
    assert np.abs(np.array(picture.mean_rgb()) - scene(7).mean(axis=(0, 1))).max() < 3


def test_compressed_grey_and_padded() -> None:
    grey = np.repeat(luma(scene(8))[..., None], 3, axis=2)
    done, data = cv2.imencode(".png", grey[..., 0].astype(np.uint16) * 256 + 9)
    assert done
    picture = picture_from_compressed(compressed_message(data.tobytes() + bytes(50)))
    np.testing.assert_array_equal(picture.rgb_region(2, 2, 30, 30), grey[2:30, 2:30])
    picture = picture_from_compressed(compressed_message(compressed(".jpg", grey) + bytes(300)))
    assert np.abs(picture.rgb_region(0, 0, 46, 34).astype(int) - grey).mean() < 6


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_refused(suffix: str, part: float) -> None:
    data = compressed(suffix, scene(9, 300, 200))
    with pytest.raises(ImageError, match=r"truncated|damaged|neither"):
        picture_from_compressed(compressed_message(data[: int(part * len(data))]))


@pytest.mark.parametrize(
    ("data", "form", "words"),
    [
        (b"", "jpeg", "has no data"),
        (b"GIF89a and so on, for long enough", "jpeg", "neither JPEG nor PNG"),
        (b"\xff\xd8" + bytes(200), "jpeg", "damaged at byte 2"),
        (b"\xff\xd8\xff\xda\x00\x0c" + bytes(30) + b"\xff\xd9", "jpeg", "no frame header"),
        (compressed(".png"), "16UC1; compressedDepth", "depth image"),
    ],
)
def test_what_is_wrong_with_a_compressed_image_is_said(data: bytes, form: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        picture_from_compressed(compressed_message(data, form))


def test_an_absurd_announced_size_is_refused_before_decoding() -> None:
    data = bytearray(compressed(".png"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ImageError, match="cannot be that large: 60000 x 60000"):
        picture_from_compressed(compressed_message(bytes(data)))


def test_damage_that_only_the_decoder_finds() -> None:
    data = bytearray(compressed(".png", scene(10, 300, 200)))
    data[60:200] = bytes(140)
    picture = picture_from_compressed(compressed_message(bytes(data)))
    with pytest.raises(ImageError, match="cannot be decoded"):
        picture.rgb_region(0, 0, 10, 10)
