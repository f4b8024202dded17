"""The Lightning module: one tracker network, its losses, optimiser and schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from siam_tracker_ros.networks.config import ConfigError
from siam_tracker_ros.networks.siam_stm import SiamSTM
from siam_tracker_ros.training import losses
from siam_tracker_ros.training.config import OptimiserConfig, TrainConfig
from siam_tracker_ros.training.labels import center_labels


class SiamSTMModule(lightning.LightningModule):
    """Trains SiamSTM on triplets: L = L_base + lambda_arm L_arm (equation 6).

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
        self.network = SiamSTM(config.network, weights).to(memory_format=torch.channels_last)
        stages = self.network.backbone.stages()
        unknown = sorted(set(config.optimiser.trainable) - set(stages))
        if unknown:
            raise ConfigError(
                f"optimiser.trainable.{unknown[0]}: backbone.kind {config.network.backbone.kind} has the stages "
                f"{', '.join(stages)}"
            )
        self.set_trainable(0)

    def set_trainable(self, epoch: int) -> None:
        """Freeze every backbone stage but those whose epoch has come."""
        for name, stage in self.network.backbone.stages().items():
            start = self.config.optimiser.trainable.get(name)
            stage.requires_grad_(start is not None and epoch >= start)

    def on_train_epoch_start(self) -> None:
        """Apply the freezing schedule."""
        self.set_trainable(self.current_epoch)

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Forward pass and losses.

        Args:
            batch: ``template [B,nz,nz,3]``, ``searches [B,2,nx,nx,3]`` uint8, ``boxes [B,2,4]``,
                ``visible [B,2]``.

        Returns:
            Total loss, its parts, decoded boxes at the heat's maximum ``[2B,4]`` (first all first
            searches).
        """
        template = _planes(batch["template"])
        # [2B]: all first search frames, then all second ones.
        search = _planes(batch["searches"].transpose(0, 1).flatten(0, 1))
        boxes = batch["boxes"].transpose(0, 1).flatten(0, 1).float()
        visible = batch["visible"].transpose(0, 1).flatten(0, 1).float()
        state = {k: torch.cat([v, v]) for k, v in self.network.template(template).items()}
        maps = self.network.search(state, search)
        labels = center_labels(boxes, visible, self.network.grid)
        heat = torch.sigmoid(maps.heat.float())[:, 0]
        decoded = self.network.boxes(maps)
        weights = self.config.loss
        parts = {"heat": losses.center_focal(heat, labels.heat)}
        if weights.box == "center_l1":
            parts["offset"], parts["size"] = losses.center_offset_size(
                maps.offset, decoded[:, 2:], boxes, labels
            )
            total = parts["heat"] + weights.offset * parts["offset"] + weights.size * parts["size"]
        else:
            parts["offset"], parts["size"], parts["giou"] = losses.dense_box(decoded, boxes, labels)
            total = parts["heat"] + weights.offset * (parts["offset"] + parts["size"])
            total = total + weights.giou * parts["giou"]
        if weights.arm:
            half = heat.shape[0] // 2
            both = visible[:half] * visible[half:]
            parts["arm"] = losses.aberrance(
                heat[:half], heat[half:], labels.heat[:half], labels.heat[half:], both
            )
            total = total + weights.arm * parts["arm"]
        best = heat.flatten(1).argmax(1)
        picked = decoded.flatten(2).gather(2, best[:, None, None].expand(-1, 4, 1))[:, :, 0]
        return total, parts, picked.detach()

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """One optimiser step's loss."""
        total, parts, _ = self.losses(batch)
        self.log("train/loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in parts.items()})
        return total

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """Losses and the overlap of the best cell's box, on held-out pictures."""
        total, _, picked = self.losses(batch)
        boxes = batch["boxes"].transpose(0, 1).flatten(0, 1).float()
        visible = batch["visible"].transpose(0, 1).flatten(0, 1) > 0
        overlap = losses.iou(picked, boxes)[visible]
        size = int(visible.sum())
        self.log("val/loss", total, batch_size=len(boxes))
        self.log("val/iou", overlap.mean(), prog_bar=True, batch_size=size)
        self.log("val/sr75", (overlap > 0.75).float().mean(), prog_bar=True, batch_size=size)

    def configure_optimizers(self) -> Any:
        """AdamW or SGD; the backbone's stages at their own rate."""
        config = self.config.optimiser
        stages = self.network.backbone.stages()
        late: list[nn.Parameter] = []
        for name in config.trainable:
            late += list(stages[name].parameters())
        own = set(map(id, self.network.backbone.parameters()))
        rest = [p for p in self.network.parameters() if id(p) not in own]
        groups = [
            {"params": rest, "lr": config.rate},
            {"params": late, "lr": config.rate * config.backbone_rate},
        ]
        if config.kind == "adamw":
            optimiser: torch.optim.Optimizer = torch.optim.AdamW(
                groups, weight_decay=config.weight_decay
            )
        else:
            optimiser = torch.optim.SGD(groups, momentum=0.9, weight_decay=config.weight_decay)
        if config.schedule == "stable_decay":
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimiser, lambda step: stable_decay(step, self.total_steps, config)
            )
            return {
                "optimizer": optimiser,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }
        epochs = self.config.run.epochs
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda epoch: siam_stm_rate(epoch, epochs) / config.rate
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"},
        }


def stable_decay(step: int, total: int, config: OptimiserConfig) -> float:
    """Factor on the peak rate: warm-up, constant, a cosine to ``final`` over the last ``decay``."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    start = (1 - config.decay) * total
    if step <= start:
        return warm
    progress = min(1.0, (step - start) / max(1.0, total - start))
    return warm * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))


def siam_stm_rate(epoch: int, epochs: int = 20) -> float:
    """The paper's rate per epoch: .001 to .005 linearly in 5 epochs, then exponentially to .0005."""
    warm = 5
    if epoch < warm:
        return 0.001 * (epoch + 1)
    return float(0.005 * (0.0005 / 0.005) ** ((epoch - warm) / max(1, epochs - warm - 1)))


def _planes(images: Tensor) -> Tensor:
    """``uint8 [B,n,n,3]`` -> ``float32 [B,3,n,n]`` (channels last in memory, without a copy of the order)."""
    return images.float().permute(0, 3, 1, 2)
