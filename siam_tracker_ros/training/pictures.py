"""Pictures of what the network is fed, for TensorBoard and for looking at before trusting a run."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor


def sample_sheet(batch: dict[str, Tensor], rows: int = 6) -> npt.NDArray[np.uint8]:
    """Template and search crops of ``rows`` samples, boxes green (visible) or red; ``uint8 [H,W,3]`` RGB."""
    lines = []
    for i in range(min(rows, len(batch["template"]))):
        searches = batch["searches"][i].numpy()
        size = searches.shape[1]
        template = batch["template"][i].numpy()
        tile = np.zeros((size, template.shape[1], 3), np.uint8)
        tile[: template.shape[0]] = template
        tiles = [tile]
        for image, box, seen in zip(searches, batch["boxes"][i], batch["visible"][i], strict=True):
            drawn = image.copy()
            cx, cy, w, h = (float(v) for v in box)
            corners = [
                (round(cx - w / 2), round(cy - h / 2)),
                (round(cx + w / 2), round(cy + h / 2)),
            ]
            cv2.rectangle(drawn, *corners, (0, 255, 0) if seen > 0 else (255, 0, 0), 1)
            tiles.append(drawn)
        lines.append(np.hstack(tiles))
    return np.vstack(lines)


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
