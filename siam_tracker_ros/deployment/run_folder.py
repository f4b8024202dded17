"""What a training run's folder says about itself: provenance for bundle.yaml and facts for the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from siam_tracker_ros.bundle import PresenceSpec
from siam_tracker_ros.deployment.model_card import CardError, DataUse, ModelCard
from siam_tracker_ros.networks.checkpoint import read_metadata

PROVENANCE = ("config", "data_manifest", "revision", "command", "metrics", "teachers")
"""Keys of a checkpoint's metadata that go into bundle.yaml as they are."""


TEACHERS = {
    "fear_xs": {
        "name": "FEAR-XS",
        "use": "its features of the search crops were imitated",
        "licence": "MIT; the data that its authors trained it on have terms of their own",
    }
}
"""Of each ``teacher.kind`` of a training configuration, what the model card says."""


def read_provenance(checkpoint: Path) -> dict[str, Any]:
    """Return bundle.yaml's provenance of a checkpoint: its metadata, and ``config.yaml`` beside it.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        CardError: if ``config.yaml`` is not YAML; names the file.
    """
    metadata = read_metadata(checkpoint)
    provenance = {key: metadata[key] for key in PROVENANCE if key in metadata}
    config = _config(checkpoint.parent, metadata)
    return {**provenance, "config": config} if config else provenance


def read_presence(checkpoint: Path) -> PresenceSpec:
    """Return the presence model that training fitted; uncalibrated, with the schema's thresholds, where it did not.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
    """
    fitted = read_metadata(checkpoint).get("presence", {})
    known = {f.name: fitted[f.name] for f in fields(PresenceSpec) if f.name in fitted}
    for name in ("features", "weights"):
        known[name] = tuple(known.get(name, ()))
    return PresenceSpec(**known)


def read_card(checkpoint: Path, extra: Path | None = None) -> ModelCard:
    """Return the model card of a checkpoint.

    Its facts come from the run's manifest and configuration (keys ``manifest`` and ``config`` of the checkpoint's
    metadata, or else ``manifest.json`` and ``config.yaml`` beside it), then from the metadata's key ``card``, then from
    ``extra``; the later replace the earlier key by key.

    Args:
        checkpoint: the network's file.
        extra: a YAML file with keys of :class:`ModelCard`.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        CardError: naming file or key.
    """
    metadata = read_metadata(checkpoint)
    card = _from_run(checkpoint.parent, metadata)
    card = card.with_changes(metadata.get("card", {}))
    if extra is not None:
        try:
            card = card.with_changes(read_yaml(extra))
        except CardError as error:
            raise CardError(f"{extra}: {error}") from error
    return card


def pretrained_data(config: Mapping[str, Any]) -> tuple[DataUse, ...]:
    """Return the data behind a backbone's initial weights, as a training configuration names them."""
    if config.get("pretrained", "auto") == "none" or config.get("start", "none") != "none":
        return ()
    kind = config.get("network", {}).get("backbone", {}).get("kind", "the backbone")
    return (DataUse("imagenet_weights", f"weights of {kind}"),)


def teachers(config: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Return whose output a training configuration imitates: name, use and licence."""
    kind = (config.get("teacher") or {}).get("kind", "none")
    return (dict(TEACHERS[kind]),) if kind != "none" else ()


def _from_run(folder: Path, metadata: Mapping[str, Any]) -> ModelCard:
    training = {key: metadata[key] for key in ("steps", "seed") if key in metadata}
    config = _config(folder, metadata)
    before = metadata.get("before")
    batch = config.get("run", {}).get("batch")
    if "steps" in training and batch is not None:
        training["samples"] = training["steps"] * batch
    file = folder / "manifest.json"
    try:
        if "manifest" in metadata:
            found = metadata["manifest"]
        elif file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
        else:
            return ModelCard(training=training)
        data = [DataUse(name, f"{entry['images']} images") for name, entry in found["sets"].items()]
        if found["cutouts"]["files"]:
            data.append(DataUse("cutouts", f"{found['cutouts']['files']} pictures"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CardError(
            f"{file}: not a training run's manifest: {type(error).__name__}: {error}"
        ) from error
    uses, imitated = (*data, *pretrained_data(config)), teachers(config)
    if before:  # what the weights began as has seen its own data
        first = _from_run(folder / "before", before)
        known, named = {use.name for use in uses}, {row["name"] for row in imitated}
        uses += tuple(use for use in first.data if use.name not in known)
        imitated += tuple(dict(row) for row in first.teachers if row["name"] not in named)
        training["started from"] = ", ".join(f"{k} {v}" for k, v in first.training.items())
    return ModelCard(data=uses, teachers=imitated, training=training)


def _config(folder: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training configuration; empty if nobody kept it."""
    if isinstance(metadata.get("config"), dict):
        return dict(metadata["config"])
    file = folder / "config.yaml"
    return read_yaml(file) if file.is_file() else {}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        CardError: naming the file.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise CardError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise CardError(f"{path}: a mapping is wanted, got {values!r:.100}")
    return values
