"""What a published tracker makes of a search crop, for a network to imitate its features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx.utils import Extractor
from torch import Tensor, nn

from siam_tracker_ros.networks.config import ConfigError

SIDE = 256
"""Pictures that FEAR-XS looks at, px."""

CHANNELS = 256
CELLS = 16
STRIDE = 16

FEATURES = "input.125"
"""FEAR-XS' tensor ``[1,256,16,16]`` between its backbone and what compares: the same for template and search."""


class FeatureTeacher:
    """FEAR-XS' features of search crops; its network runs on ONNX Runtime, one thread.

    Opened with the first picture, so that every worker process has its own.

    Args:
        file: ``fear_xs_search.onnx``.

    Raises:
        ConfigError: if it is not there.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise ConfigError(
                f"teacher.kind: fear_xs wants {file}, which is no file: set SIAM_TRACKER_DATA, or say kind: none"
            )
        self.file = file
        self._session: Any = None

    def __call__(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """``uint8 [S,n,n,3]`` RGB, n of 256 or more -> ``float16 [S,256,16,16]`` of the upper left 256 px.

        Cell k looks at crop px 16 k, as does a backbone of stride 16 without padding to one side.
        """
        if self._session is None:
            self._session = self._open()
        planes = crops[:, :SIDE, :SIDE].transpose(0, 3, 1, 2).astype(np.float32)
        found = [self._session.run(None, {"image": plane[None]})[0][0] for plane in planes]
        return np.stack(found).astype(np.float16)

    def _open(self) -> Any:
        whole = onnx.shape_inference.infer_shapes(onnx.load(str(self.file)))
        part = Extractor(whole).extract_model(["image"], [FEATURES])
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return ort.InferenceSession(
            part.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


class Imitation(nn.Module):
    """Makes a backbone's last map of stride 16 comparable with the teacher's, and measures how far it is.

    Not part of the network: it is dropped after training.

    Args:
        backbone: gives a map for each of its ``strides``; what it gives for search crops is remembered.
        side: of a search crop, px.

    Raises:
        ConfigError: if no map of the backbone lies on the teacher's grid.
    """

    def __init__(self, backbone: nn.Module, side: int) -> None:
        super().__init__()
        with torch.no_grad():
            shapes = [tuple(m.shape) for m in backbone(torch.zeros(1, 3, side, side))]
        # The teacher's picture of 256 px begins where the crop begins.
        fitting = [i for i, s in enumerate(shapes) if s[-1] == (side - 1) // STRIDE + 1 > CELLS]
        if not fitting or side > SIDE + STRIDE:
            raise ConfigError(
                f"teacher: a backbone with a map of stride {STRIDE} and crop.search: {SIDE + 1} are wanted; maps of "
                f"a {side} px search crop are {', '.join(f'{s[-1]} x {s[-1]}' for s in shapes)}"
            )
        self.index, self.side = fitting[-1], side
        self.project = nn.Conv2d(shapes[self.index][1], CHANNELS, 1)
        self.scale = nn.BatchNorm2d(CHANNELS, affine=False)
        self._seen: list[Tensor] = []
        backbone.register_forward_hook(self._remember)

    def _remember(self, backbone: nn.Module, inputs: Any, maps: Sequence[Tensor]) -> None:
        if self.training and torch.is_grad_enabled() and inputs[0].shape[-1] == self.side:
            self._seen.append(maps[self.index])

    def forward(self, teacher: Tensor) -> Tensor:
        """Mean squared difference, in the teacher's standard deviations.

        Args:
            teacher: ``[N,256,16,16]`` in the order in which the network saw the N search crops.
        """
        seen, self._seen = torch.cat(self._seen), []
        wanted = self.scale(teacher.float())
        return (self.project(seen[:, :, :CELLS, :CELLS]).float() - wanted).square().mean()
