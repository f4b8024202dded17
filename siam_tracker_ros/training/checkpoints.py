"""Checkpoints of a run: a new one is complete before it takes the place of the last."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class DiskError(RuntimeError):
    """A run cannot write to its folder; the message says what is kept."""


class CarefulCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the last one, then puts it in its place.

    Lightning's own way copies from the temporary folder where that is another disk, and so cuts the
    last checkpoint off when this one is full.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint``.

        Raises:
            DiskError: if it cannot be written; the last one is as it was.
        """
        file = Path(path)
        part = file.with_name(f".{file.name}.{os.getpid()}.part")
        memory = io.BytesIO()
        torch.save(checkpoint, memory)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                stream.write(memory.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(file)
        except OSError as error:
            part.unlink(missing_ok=True)
            kept = "the last one is kept" if file.is_file() else "there is none before it"
            raise DiskError(
                f"{file}: the checkpoint cannot be written: {error.strerror}; {kept}. Make room and "
                "go on with --resume"
            ) from error
