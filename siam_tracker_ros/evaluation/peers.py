"""Published light trackers as yardsticks, behind the same interface as our own.

The models come from the folder ``peers`` of the data (see
:mod:`~siam_tracker_ros.evaluation.data_root`); OpenCV's own trackers are used where the installed
OpenCV has them (CSRT and KCF come with the contrib build only).
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.evaluation.data_root import require_data
from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.protocol import Answer, FrameTracker, Xywh

Floats = npt.NDArray[np.float32]


class PeerError(RuntimeError):
    """A peer is unknown or cannot run here; the message says why."""


class StaticBox:
    """A box that never moves: what a benchmark gives for nothing."""

    def start(self, frame: Frame, box: Xywh) -> Answer:
        """Remember ``box``."""
        self._box = box
        return Answer(box)

    def track(self, frame: Frame) -> Answer:
        """Answer the remembered box."""
        return Answer(self._box)


class OpenCvTracker:
    """One of OpenCV's trackers; a frame in which it reports failure keeps the last box."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._create = create

    def start(self, frame: Frame, box: Xywh) -> Answer:
        """Start anew; OpenCV's interface takes whole pixels."""
        self._tracker = self._create()
        x, y, w, h = (round(v) for v in box)
        self._tracker.init(frame, (x, y, w, h))
        self._last = box
        return Answer(box)

    def track(self, frame: Frame) -> Answer:
        """Update."""
        found, box = self._tracker.update(frame)
        if found:
            x, y, w, h = (float(v) for v in box)
            self._last = (x, y, w, h)
        return Answer(self._last, 1.0 if found else 0.0)


def _window(frame: Frame, region: Xywh, size: int, border: tuple[float, ...] = (0.0,) * 3) -> Frame:
    """Squeeze ``region`` (x,y,w,h, any position) to ``size`` x ``size`` pixels; uint8 BGR."""
    x, y, w, h = region
    to_window = np.array(
        [[size / w, 0.0, -x * size / w], [0.0, size / h, -y * size / h]], np.float32
    )
    cut = cv2.warpAffine(
        frame, to_window, (size, size), borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )
    return np.asarray(cut, dtype=np.uint8)


def _planes(window: Frame) -> Floats:
    """Return float32 [1,3,n,n] RGB of a BGR window."""
    return np.ascontiguousarray(window[:, :, ::-1].transpose(2, 0, 1)[None], dtype=np.float32)


class FearXs:
    """FEAR-XS: windows squeezed from 1.4 and 5 times the box, no size smoothing."""

    TEMPLATE, SEARCH, CELLS, STRIDE = 128, 256, 16, 16
    WINDOW_WEIGHT = 0.38

    def __init__(self, template: Any, search: Any) -> None:
        self._template, self._search = template, search
        self._names = [o.name for o in search.get_outputs()]
        hann = np.hanning(self.CELLS)
        self._hann = np.outer(hann, hann)

    def start(self, frame: Frame, box: Xywh) -> Answer:
        """Compute the template's features."""
        self._box = box
        window = self._cut(frame, self._around(0.2), self.TEMPLATE)
        self._features = self._template.run(None, {"image": _planes(window)})[0]
        return Answer(box, 1.0)

    def track(self, frame: Frame) -> Answer:
        """Take the box at the best cell of the windowed map."""
        region = self._around(2.0)
        inputs = {
            "image": _planes(self._cut(frame, region, self.SEARCH)),
            "template_features": self._features,
        }
        outputs = dict(zip(self._names, self._search.run(None, inputs), strict=True))
        probability = 1.0 / (1.0 + np.exp(-outputs["cls"][0, 0]))
        weighted = (1 - self.WINDOW_WEIGHT) * probability + self.WINDOW_WEIGHT * self._hann
        row, column = divmod(int(np.argmax(weighted)), self.CELLS)
        left, top, right, bottom = (float(v) for v in outputs["bbox"][0][:, row, column])
        x = (column - self.CELLS // 2) * self.STRIDE + self.SEARCH / 2
        y = (row - self.CELLS // 2) * self.STRIDE + self.SEARCH / 2
        kx, ky = region[2] / self.SEARCH, region[3] / self.SEARCH
        box = (
            region[0] + (x - left) * kx,
            region[1] + (y - top) * ky,
            max(3.0, (left + right) * kx),
            max(3.0, (top + bottom) * ky),
        )
        self._box = _inside(box, frame.shape[1], frame.shape[0])
        return Answer(self._box, float(probability[row, column]))

    def _around(self, margin: float) -> Xywh:
        x, y, w, h = self._box
        return x - margin * w, y - margin * h, w * (1 + 2 * margin), h * (1 + 2 * margin)

    def _cut(self, frame: Frame, region: Xywh, size: int) -> Frame:
        border = tuple(float(v) for v in frame[::8, ::8].mean(axis=(0, 1)))
        return _window(frame, region, size, border)


def _inside(box: Xywh, width: int, height: int, least: float = 3.0) -> Xywh:
    """Cut a box at the picture's right and bottom, and hold its corner inside."""
    right, bottom = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    x = min(max(box[0], 0.0), width - least)
    y = min(max(box[1], 0.0), height - least)
    return x, y, max(least, right - x), max(least, bottom - y)


class VitTrack:
    """ViTTrack: square windows of 2 and 4 times the mean side, a map with a Hann window."""

    TEMPLATE, SEARCH, CELLS = 128, 256, 16
    MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = [i.name for i in session.get_inputs()]
        hann = np.hanning(self.CELLS + 2)[1:-1]
        self._hann = np.outer(hann, hann)

    def start(self, frame: Frame, box: Xywh) -> Answer:
        """Keep the template's window."""
        self._box = box
        self._template = self._normalised(frame, self._square(2.0), self.TEMPLATE)
        return Answer(box, 1.0)

    def track(self, frame: Frame) -> Answer:
        """Take the box at the best cell of the windowed map."""
        region = self._square(4.0)
        search = self._normalised(frame, region, self.SEARCH)
        outputs = self._session.run(
            None, dict(zip(self._inputs, (self._template, search), strict=True))
        )
        confidence = next(o for o in outputs if o.shape[1] == 1)[0, 0]
        size, offset = (o[0] for o in outputs if o.shape[1] == 2)
        row, column = divmod(int(np.argmax(confidence * self._hann)), self.CELLS)
        cx = (column + float(offset[0, row, column])) / self.CELLS
        cy = (row + float(offset[1, row, column])) / self.CELLS
        w, h = (float(v) for v in size[:, row, column])
        x0, y0, side, _ = self._mapped
        self._box = (
            x0 + (cx - w / 2) * side,
            y0 + (cy - h / 2) * side,
            max(2.0, w * side),
            max(2.0, h * side),
        )
        return Answer(self._box, float(confidence[row, column]))

    def _square(self, factor: float) -> Xywh:
        x, y, w, h = self._box
        side = math.ceil(math.sqrt(w * h) * factor)
        # The window is cut at whole pixels; boxes are mapped back with the exact corner, as
        # OpenCV's does.
        x0, y0 = x + w / 2 - side / 2, y + h / 2 - side / 2
        self._mapped = (x0, y0, float(side), float(side))
        return float(round(x0)), float(round(y0)), float(side), float(side)

    def _normalised(self, frame: Frame, region: Xywh, size: int) -> Floats:
        planes = (_planes(_window(frame, region, size)) / 255 - self.MEAN) / self.DEVIATION
        return np.ascontiguousarray(planes, dtype=np.float32)


def _ort_session(file: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise PeerError("this peer runs on ONNX Runtime: install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _opencv_factory(name: str) -> Callable[[], Any]:
    for module in (cv2, getattr(cv2, "legacy", None)):
        create = getattr(module, f"Tracker{name}_create", None)
        if create is not None:
            return create  # type: ignore[no-any-return]
    raise PeerError(
        f"OpenCV {cv2.__version__} has no Tracker{name}: "
        "it comes with opencv-contrib-python-headless"
    )


def _fear(files: list[Path], threads: int) -> FrameTracker:
    return FearXs(*(_ort_session(f, threads) for f in files))


def _vit(files: list[Path], threads: int) -> FrameTracker:
    return VitTrack(_ort_session(files[0], threads))


def _nano(files: list[Path], threads: int) -> FrameTracker:
    create = _opencv_factory("Nano")
    parameters = cv2.TrackerNano_Params()
    parameters.backbone, parameters.neckhead = (str(f) for f in files)
    return OpenCvTracker(lambda: create(parameters))


@dataclass(frozen=True)
class PeerKind:
    """How a peer is called in tables, which model files it needs and how it is made."""

    title: str
    files: tuple[str, ...]
    make: Callable[[list[Path], int], FrameTracker]


PEERS: dict[str, PeerKind] = {
    "fear_xs": PeerKind(
        "FEAR-XS (ONNX Runtime)", ("fear_xs_template.onnx", "fear_xs_search.onnx"), _fear
    ),
    "nano": PeerKind(
        "NanoTrack v2 (OpenCV)", ("nanotrack_backbone_sim.onnx", "nanotrack_head_sim.onnx"), _nano
    ),
    "vit": PeerKind("ViTTrack (ONNX Runtime)", ("vitTracker.onnx",), _vit),
    "csrt": PeerKind(
        "CSRT (OpenCV)", (), lambda files, threads: OpenCvTracker(_opencv_factory("CSRT"))
    ),
    "kcf": PeerKind(
        "KCF (OpenCV)", (), lambda files, threads: OpenCvTracker(_opencv_factory("KCF"))
    ),
    "static": PeerKind("a box that never moves", (), lambda files, threads: StaticBox()),
}


@dataclass(frozen=True)
class PeerMaker:
    """Makes one peer in whatever process it is called in.

    Args:
        kind: a key of ``PEERS``.
        threads: of ONNX Runtime and OpenCV (whose number is set for the whole process).

    Raises:
        PeerError: if there is no such peer, or OpenCV or ONNX Runtime cannot run it.
        FileNotFoundError: if its model files are not in the data folder.
    """

    kind: str
    threads: int = 2

    def __post_init__(self) -> None:
        if self.kind not in PEERS:
            raise PeerError(f"no peer {self.kind!r}; there are {', '.join(PEERS)}")

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.kind

    @property
    def details(self) -> dict[str, Any]:
        """Title and threads, for the report."""
        return {"title": PEERS[self.kind].title, "threads": self.threads}

    @property
    def fingerprint(self) -> str:
        """Hash over the peer's files, this module, the libraries' versions and the threads."""
        digest = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode())
        digest.update(f"{self.kind} {self.threads} {cv2.__version__}".encode())
        for file in self._files():
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        return [require_data(f"peers/{name}") for name in PEERS[self.kind].files]

    def __call__(self) -> FrameTracker:
        """Make the tracker."""
        cv2.setNumThreads(self.threads)
        return PEERS[self.kind].make(self._files(), self.threads)
