"""The Lightning module: one tracker network, its losses, optimiser and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.build import make_network
from siam_tracker_ros.networks.config import ConfigError
from siam_tracker_ros.training import losses
from siam_tracker_ros.training.config import TrainConfig
from siam_tracker_ros.training.objectives import Batch, make_objective
from siam_tracker_ros.training.schedules import rate_factor
from siam_tracker_ros.training.teacher import Imitation


class TrackerModule(lightning.LightningModule):
    """Trains the network of a configuration on its tracker's objective.

    Args:
        config: the run.
        weights: ImageNet state dict of the backbone, or None.
        total_steps: optimiser steps of the whole run, for the schedule.
    """

    def __init__(
        self, config: TrainConfig, weights: Mapping[str, Tensor] | None, total_steps: int
    ) -> None:
        super().__init__()
        self.config = config
        self.total_steps = total_steps
        network = make_network(config.network, weights)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = make_objective(config.loss)
        stages = self.network.stages()
        unknown = sorted(set(config.optimiser.trainable) - set(stages))
        if unknown:
            raise ConfigError(
                f"optimiser.trainable.{unknown[0]}: backbone.kind {config.network.backbone.kind} has the stages "
                f"{', '.join(stages)}"
            )
        self.imitation = self._imitate()
        self.set_trainable(0)

    def set_trainable(self, epoch: int) -> None:
        """Freeze every backbone stage but those whose epoch has come."""
        for name, stage in self.network.stages().items():
            start = self.config.optimiser.trainable.get(name)
            stage.requires_grad_(start is not None and epoch >= start)

    def setup(self, stage: str) -> None:
        """Several devices agree once, here, on which parameters they exchange: all that ever train."""
        if self.trainer.world_size > 1:
            self.set_trainable(self.config.run.epochs)

    def on_train_start(self) -> None:
        """Apply the freezing schedule where a run goes on inside an epoch."""
        self.set_trainable(self.current_epoch)

    def on_train_epoch_start(self) -> None:
        """Apply the freezing schedule."""
        self.set_trainable(self.current_epoch)

    def _imitate(self) -> Imitation | None:
        if self.config.teacher.kind == "none":
            return None
        return Imitation(self.network.backbone, self.config.network.crop.search)  # type: ignore[arg-type]

    def _as_seen(self, of_searches: Tensor) -> Tensor:
        """``[B,S,...]`` -> ``[B*S,...]`` in the order in which the objective shows the searches."""
        if self.objective.frames_first:
            of_searches = of_searches.transpose(0, 1)
        return of_searches.flatten(0, 1)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One optimiser step's loss."""
        result = self.objective(self.network, batch)
        total, parts = result.total, result.parts
        if self.imitation is not None:
            parts = {**parts, "imitation": self.imitation(self._as_seen(batch["teacher"]))}
            total = total + self.config.teacher.weight * parts["imitation"]
        self.log("train/loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in parts.items()})
        return total

    def validation_step(self, batch: Batch, index: int) -> None:
        """Losses and the overlap of the best box, on held-out pictures."""
        result = self.objective(self.network, batch)
        boxes = batch["boxes"].flatten(0, 1).float()
        visible = batch["visible"].flatten() > 0
        overlap = losses.iou(result.boxes.flatten(0, 1), boxes)[visible]
        size = int(visible.sum())
        self.log("val/loss", result.total, batch_size=len(boxes))
        self.log("val/iou", overlap.mean(), prog_bar=True, batch_size=size)
        self.log("val/sr75", (overlap > 0.75).float().mean(), prog_bar=True, batch_size=size)

    def configure_optimizers(self) -> Any:
        """AdamW or SGD; the backbone's stages at their own rate."""
        config = self.config.optimiser
        stages = self.network.stages()
        slow: list[nn.Parameter] = []
        for name in config.trainable:
            slow += list(stages[name].parameters())
        own = {id(p) for stage in stages.values() for p in stage.parameters()}
        rest = [p for p in self.network.parameters() if id(p) not in own]
        if self.imitation is not None:
            rest += self.imitation.parameters()
        groups = [
            {"params": rest, "lr": config.rate},
            {"params": slow, "lr": config.rate * config.backbone_rate},
        ]
        if config.kind == "adamw":
            optimiser: torch.optim.Optimizer = torch.optim.AdamW(
                groups, weight_decay=config.weight_decay
            )
        else:
            optimiser = torch.optim.SGD(groups, momentum=0.9, weight_decay=config.weight_decay)
        epochs = self.config.run.epochs
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: rate_factor(config, step, self.total_steps, epochs)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
