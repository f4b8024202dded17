"""A training run from configuration to checkpoint: what ``siam-tracker train`` calls."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import lightning
import torch
import yaml
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import load_file
from torch import Tensor

from siam_tracker_ros.deployment.presence_fit import (
    PresenceError,
    calibrate_network,
    presence_data,
    presence_figures,
    write_report,
)
from siam_tracker_ros.evaluation.data_root import data_root
from siam_tracker_ros.networks.checkpoint import (
    CheckpointError,
    load_network,
    load_weights,
    read_metadata,
    save_network,
)
from siam_tracker_ros.networks.config import ConfigError
from siam_tracker_ros.networks.grid import STRIDE, Grid
from siam_tracker_ros.training.checkpoints import CarefulCheckpoints, DiskError
from siam_tracker_ros.training.config import SamplingConfig, TrainConfig
from siam_tracker_ros.training.datasets.opening import open_set
from siam_tracker_ros.training.loader import EpochSampler, SameEveryTime, make_loader
from siam_tracker_ros.training.module import TrackerModule
from siam_tracker_ros.training.objectives import make_objective
from siam_tracker_ros.training.pictures import SamplePictures
from siam_tracker_ros.training.presence_clips import halves, presence_clips
from siam_tracker_ros.training.samples import SampleSource, find_cutouts, split_sets
from siam_tracker_ros.training.shards import Region, check_regions
from siam_tracker_ros.training.tar_sets import DataError, ImageSet
from siam_tracker_ros.training.teacher import FeatureTeacher

_TORCHVISION = {
    "atrous_resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "inception_v3": "Inception_V3_Weights.IMAGENET1K_V1",
    "alexnet": "AlexNet_Weights.IMAGENET1K_V1",
}
"""Backbones whose ImageNet weights torchvision has; timm has the others'."""

UNREADABLE = "unreadable.txt"
"""In the run's folder: images that could not be read, a line each time (``data.on_error: skip``)."""

VALIDATION_SEED = 20_000_003
PRESENCE_SEED = 1


def train(config: TrainConfig, out: Path, resume: bool = False, progress: bool = True) -> Path:
    """Run ``config``; writes everything under ``out`` and returns the network's file ``out/network.safetensors``.

    Args:
        config: the run.
        out: its folder: ``config.yaml``, ``manifest.json``, ``checkpoints/``, ``metrics/``, TensorBoard's,
            ``unreadable.txt`` where images were left out.
        resume: go on from ``checkpoints/last.ckpt`` where it exists.
        progress: show a progress bar.

    Raises:
        ConfigError, DataError: with the key or file that is wrong, before anything is trained.
    """
    out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(0)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    lightning.seed_everything(config.run.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    sets = read_sets(config)
    manifest = data_manifest(config, sets)
    for folder in config.data.cutouts:
        if not Path(folder).is_dir():
            warnings.warn(f"data.cutouts: {folder} is no folder; training without it", stacklevel=2)
    run = config.run
    placed = placement()
    if rank_zero_only.rank == 0:
        (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        (out / "config.yaml").write_text(yaml.safe_dump(_plain(config), sort_keys=False))
    devices = placed["devices"] * placed["num_nodes"]
    steps = run.epochs * (run.samples_per_epoch // (run.batch * devices))
    module = TrackerModule(config, backbone_weights(config), steps)
    before = _start(config, module)
    grid = module.network.grid
    training, held = (split_sets(sets, config.data, holdout) for holdout in (False, True))
    sources = [
        _source(config, grid, training, config.sampling, run.seed, out / UNREADABLE),
        _source(config, grid, held, config.sampling, VALIDATION_SEED, out / UNREADABLE),
    ]
    loaders = [
        make_loader(
            sources[0],
            EpochSampler(run.samples_per_epoch),
            run.batch,
            run.workers,
            _teacher(config),
        ),
        make_loader(sources[1], SameEveryTime(run.validation_samples), run.batch, 0),
    ]
    last = out / "checkpoints" / "last.ckpt"
    callbacks: list[Callback] = [
        ModelCheckpoint(
            out / "checkpoints",
            every_n_train_steps=run.checkpoint_every,
            save_last=True,
            save_top_k=0,
        ),
        Snapshot(
            out / "network.safetensors",
            {
                "data_manifest": manifest["sha256"],
                "manifest": manifest,
                "config": _plain(config),
                "seed": run.seed,
                **before,
            },
        ),
        *_averaging(config),
        LearningRateMonitor("step"),
        Throughput(),
        SamplePictures(),
        *([_progress_bar()] if progress else []),
    ]
    loggers = [
        TensorBoardLogger(out, name="tensorboard", version=""),
        CSVLogger(out, name="metrics"),
    ]
    trainer = lightning.Trainer(
        default_root_dir=out,
        max_epochs=run.epochs,
        precision=run.precision,
        gradient_clip_val=config.optimiser.clip,
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=20,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
        plugins=[CarefulCheckpoints()],
        use_distributed_sampler=False,  # EpochSampler deals its samples out itself
        **placed,
    )
    trainer.fit(module, *loaders, ckpt_path=str(last) if resume and last.is_file() else None)
    path = out / "network.safetensors"
    if trainer.is_global_zero and run.presence_clips:
        add_presence(path, config, sets)
    return path


def add_presence(path: Path, config: TrainConfig, sets: list[ImageSet]) -> None:
    """Calibrate presence on clips of held-out pictures; into the network's file and its folder.

    ``presence.json`` and ``reliability.png`` beside the file tell how good it is. Where it cannot be
    calibrated the bundle will say so, and a warning says why.
    """
    network, made = load_network(path), read_metadata(path)
    count = config.run.presence_clips // 2
    try:
        fit, check = (
            presence_clips(half, config.data, count, PRESENCE_SEED)
            for half in halves(split_sets(sets, config.data, True))
        )
        found = calibrate_network(network, fit, check)
    except (RuntimeError, PresenceError) as error:  # of data, export, session: the network is kept
        warnings.warn(f"presence is not calibrated: {error}", stacklevel=2)
        return
    how = (
        f"Measured at the end of training on {count} made clips of held-out pictures and videos, of other sources "
        f"than the {count} that it was fitted on."
    )
    card = {**made.get("card", {}), "presence": presence_figures(found, how)}
    presence = presence_data(found.spec)
    save_network(path, network, {**made, "presence": presence, "card": card})
    write_report(found, path.parent, path.parent.name)


def placement() -> dict[str, Any]:
    """Lightning's settings for where to train: as torchrun says, else on one device."""
    local, nodes = (int(os.environ.get(k, "1")) for k in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"))
    # Stages that are frozen at first take part from their epoch on: see TrackerModule.
    strategy = "ddp_find_unused_parameters_true" if local * nodes > 1 else "auto"
    return {"devices": local, "num_nodes": nodes, "strategy": strategy}


def _source(
    config: TrainConfig,
    grid: Grid,
    sets: list[ImageSet],
    sampling: SamplingConfig,
    seed: int,
    unreadable: Path | None = None,
) -> SampleSource:
    """Samples of ``sets`` whose targets lie inside the response grid."""
    return SampleSource(
        sets,
        config.network.crop,
        grid.cells * STRIDE / 2,
        config.data,
        sampling,
        config.augmentation,
        seed,
        make_objective(config.loss).samples,
        unreadable,
    )


def _start(config: TrainConfig, module: TrackerModule) -> dict[str, Any]:
    """Put the weights of ``config.start`` in place; return what the network's file says of that run.

    Raises:
        ConfigError: if they cannot be read or are of another network.
    """
    if config.start == "none":
        return {}
    path = Path(config.start)
    try:
        load_weights(path, module.network)
        found = read_metadata(path)
    except CheckpointError as error:
        raise ConfigError(f"start: {error}") from error
    kept = ("manifest", "config", "steps", "seed", "before")
    return {"before": {key: found[key] for key in kept if key in found}}


def _teacher(config: TrainConfig) -> FeatureTeacher | None:
    if config.teacher.kind == "none":
        return None
    root = data_root()
    return FeatureTeacher((root or Path()) / "peers" / "fear_xs_search.onnx")


def read_sets(config: TrainConfig) -> list[ImageSet]:
    """List the configured sets: where ``data.sources`` says, else tars under ``SIAM_TRACKER_DATA/train``.

    Raises:
        DataError: if the data folder or a set is missing or broken, or shards hold less around an
            object than this run's crops want.
    """
    data = config.data
    if not data.sets:
        raise ConfigError("data.sets names no training set")
    unknown = sorted(set(data.sources) - set(data.sets))
    if unknown:
        raise ConfigError(f"data.sources.{unknown[0]} is not one of data.sets")
    root = data_root()
    if root is None and set(data.sets) - set(data.sources):
        raise DataError(
            "training sets are looked for in $SIAM_TRACKER_DATA/train; set SIAM_TRACKER_DATA to the data folder, "
            "or name their folders in data.sources"
        )
    sets = []
    for name in data.sets:
        source = data.sources.get(name, f"tar:{root}/train/{name}.tar")
        sets.append(open_set(name, source, data.on_error))
    check_regions(sets, [Region(config.network.crop, config.augmentation)])
    return sets


def data_manifest(config: TrainConfig, sets: list[ImageSet]) -> dict[str, Any]:
    """What the run saw: sets with hashes and counts, the held-out part, and one hash over all of it."""
    entries = {
        s.name: {
            "sha256": s.sha256,
            "images": len(s.images),
            "stills": len(s.stills),
            "tracks": len(s.tracks),
            "skipped": s.skipped,
        }
        for s in sets
    }
    cutouts = find_cutouts(config.data)
    digest = hashlib.sha256()
    for path in cutouts:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    manifest: dict[str, Any] = {
        "sets": entries,
        "cutouts": {"files": len(cutouts), "sha256": digest.hexdigest() if cutouts else None},
        "holdout": {"videos": list(config.data.holdout_videos), "every": config.data.holdout_every},
    }
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return manifest


def backbone_weights(config: TrainConfig) -> Mapping[str, Tensor] | None:
    """ImageNet weights as ``pretrained`` says: ``auto``, ``none`` or a safetensors file.

    ``auto`` takes ``SIAM_TRACKER_DATA/weights/<kind>*.safetensors``, else what timm or torchvision
    fetch.

    Raises:
        ConfigError: if a named file is missing, or nothing can be fetched.
    """
    if config.pretrained == "none" or config.start != "none":
        return None
    if config.pretrained != "auto":
        path = Path(config.pretrained)
        if not path.is_file():
            raise ConfigError(f"pretrained: {path} is no file (or say auto or none)")
        return load_file(path)
    kind = config.network.backbone.kind
    root = data_root()
    found = sorted((root / "weights").glob(f"{kind}_*.safetensors")) if root else []
    if found:
        return load_file(found[0])
    try:
        if kind in _TORCHVISION:
            from torchvision.models import get_weight

            return get_weight(_TORCHVISION[kind]).get_state_dict(progress=False)
        import timm

        return timm.create_model(kind, pretrained=True).state_dict()
    except Exception as error:
        raise ConfigError(
            f"pretrained: no ImageNet weights for {kind} under $SIAM_TRACKER_DATA/weights, and none could be fetched "
            f"({type(error).__name__}). Name a safetensors file, or say none to start from random weights"
        ) from error


class Snapshot(Callback):
    """Writes the averaged network after every epoch's validation: a run can be used before it ends.

    Must come before the averaging callback, which puts the averaged weights in place for validation
    and takes them out again at its end.
    """

    def __init__(self, path: Path, metadata: dict[str, Any]) -> None:
        self.path, self.metadata = path, metadata

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save what was validated, with its figures; one device does it for all."""
        if not trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        made = {
            "metrics": metrics,
            "steps": trainer.global_step,
            "epoch": trainer.current_epoch + 1,
        }
        try:
            save_network(self.path, pl_module.network, {**self.metadata, **made})
        except OSError as error:
            raise DiskError(
                f"{self.path}: the network cannot be written: {error.strerror}; the one before it and the last "
                "checkpoint are kept. Make room and go on with --resume"
            ) from error


class Throughput(Callback):
    """Logs samples a second and the share of a step spent waiting for data."""

    def __init__(self) -> None:
        self.end = time.perf_counter()
        self.waited = self.worked = 0.0
        self.samples = 0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Data has arrived."""
        self.begin = time.perf_counter()
        self.waited += self.begin - self.end

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Step is done."""
        self.end = time.perf_counter()
        self.worked += self.end - self.begin
        self.samples += len(batch["template"])
        if (batch_idx + 1) % 20 == 0:
            total = self.waited + self.worked
            pl_module.log("speed/samples_per_s", self.samples / total, prog_bar=True)
            pl_module.log("speed/waiting", self.waited / total, prog_bar=True)
            self.waited = self.worked = 0.0
            self.samples = 0


def _averaging(config: TrainConfig) -> list[Callback]:
    """Average the weights once the warm-up is over; the first average is a copy."""
    optimiser = config.optimiser
    if not optimiser.ema:
        return []
    return [EMAWeightAveraging(decay=optimiser.ema, update_starting_at_step=optimiser.warmup_steps)]


def _progress_bar() -> Callback:
    import sys

    return RichProgressBar() if sys.stdout.isatty() else TQDMProgressBar(refresh_rate=50)


def _plain(config: TrainConfig) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [convert(v) for v in value]
        return value

    return dict(convert(dataclasses.asdict(config)))
