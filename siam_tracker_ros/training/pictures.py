"""Pictures of what the network is fed, for TensorBoard and for looking at before trusting a run."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

GREEN, RED, YELLOW = (0, 255, 0), (255, 0, 0), (255, 255, 0)


def sample_sheet(batch: dict[str, Tensor], rows: int = 6) -> npt.NDArray[np.uint8]:
    """Template and search crops of ``rows`` samples with their boxes; ``uint8 [H,W,3]`` RGB.

    Targets are green, or red where they are not to be seen; related objects yellow.
    """
    lines = []
    for i in range(min(rows, len(batch["template"]))):
        size = batch["searches"].shape[2]
        tiles = []
        for image, box in zip(
            batch["template"][i].numpy(), batch["template_boxes"][i], strict=True
        ):
            tile = np.zeros((size, image.shape[1], 3), np.uint8)
            tile[: image.shape[0]] = image
            _draw(tile, box, GREEN)
            tiles.append(tile)
        for j, image in enumerate(batch["searches"][i].numpy()):
            tile = image.copy()
            for box, there in zip(batch["related"][i, j], batch["related_mask"][i, j], strict=True):
                if there > 0:
                    _draw(tile, box, YELLOW)
            _draw(tile, batch["boxes"][i, j], GREEN if batch["visible"][i, j] > 0 else RED)
            tiles.append(tile)
        lines.append(np.hstack(tiles))
    return np.vstack(lines)


def _draw(image: npt.NDArray[np.uint8], box: Tensor, colour: tuple[int, int, int]) -> None:
    """Draw the outline of ``box`` (cx, cy, w, h)."""
    cx, cy, w, h = (float(v) for v in box)
    first = (round(cx - (w - 1) / 2), round(cy - (h - 1) / 2))
    last = (round(cx + (w - 1) / 2), round(cy + (h - 1) / 2))
    cv2.rectangle(image, first, last, colour, 1)


class SamplePictures(Callback):
    """Puts one sheet of samples an epoch into TensorBoard."""

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw the first batch of the epoch."""
        if batch_idx:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                sheet = sample_sheet({k: v.cpu() for k, v in batch.items()})
                logger.experiment.add_image(
                    "samples", sheet, trainer.global_step, dataformats="HWC"
                )
