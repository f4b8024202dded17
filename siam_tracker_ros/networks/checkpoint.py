"""Trained networks on disk: safetensors, with the configuration that made them in the file's own metadata.

No pickle: a checkpoint from elsewhere can be read without running anything of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from siam_tracker_ros.networks.build import TRACKERS, make_network
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig
from siam_tracker_ros.networks.tracker_network import TrackerNetwork

FORMAT = "siam_tracker_ros.network"
VERSION = 1
"""The newest checkpoint version that is read, and the one that is written."""

_SHOWN = 5  # of the differences, in a message


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or is not of the network that is wanted; the message says what differs."""


def save_network(
    path: str | os.PathLike[str], network: TrackerNetwork, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write weights and configuration of ``network``; the file is either complete or as it was before.

    Args:
        path: the file, by custom ``*.safetensors``.
        network: weights of any device and mode.
        metadata: anything that JSON can hold about how it was made (steps, data, metrics); what the
            keys ``provenance`` and ``card`` hold goes into an exported bundle.

    Raises:
        TypeError: if ``metadata`` does not fit into JSON.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "tracker": network.config.tracker,
        "config": json.dumps(network.config.to_dict()),
        "metadata": json.dumps(dict(metadata or {})),
    }
    state = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save(state, metadata=header))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_network(path: str | os.PathLike[str]) -> TrackerNetwork:
    """Build the network that a checkpoint holds, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: naming the file and what is wrong or differs.
    """
    path = Path(path)
    header, state = _read(path)
    config = _config(path, header)
    network = make_network(config)
    _fill(path, network, state)
    return network.eval()


def load_weights(path: str | os.PathLike[str], network: TrackerNetwork) -> None:
    """Fill ``network`` with a checkpoint's weights (to go on training, or to fine-tune).

    Raises:
        CheckpointError: naming the file and what differs; the network is then as it was.
    """
    path = Path(path)
    header, state = _read(path)
    config = _config(path, header)
    if config.tracker != network.config.tracker:
        raise CheckpointError(
            f"{path}: holds weights of tracker {config.tracker}, wanted is {network.config.tracker}"
        )
    _fill(path, network, state)


def read_config(path: str | os.PathLike[str]) -> NetworkConfig:
    """Return a checkpoint's configuration without reading its weights.

    Raises:
        CheckpointError: as :func:`load_network`.
    """
    path = Path(path)
    return _config(path, _header(path))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what was given to :func:`save_network` as ``metadata``.

    Raises:
        CheckpointError: as :func:`load_network`.
    """
    path = Path(path)
    found = _json(path, _header(path), "metadata")
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: metadata: a mapping is wanted, got {found!r:.100}")
    return found


def _header(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from error
    _check_header(path, header)
    return dict(header)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    header = _header(path)
    with safe_open(path, framework="pt") as file:
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _check_header(path: Path, header: Mapping[str, str]) -> None:
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: no checkpoint of this project: format is {header.get('format')!r}, not {FORMAT!r}"
        )
    version = header.get("version", "")
    if version != str(VERSION):
        raise CheckpointError(f"{path}: version is {version!r}, this program reads {VERSION}")
    if header.get("tracker") not in TRACKERS:
        raise CheckpointError(
            f"{path}: tracker is {header.get('tracker')!r}, known is {', '.join(TRACKERS)}"
        )


def _json(path: Path, header: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(header.get(key, ""))
    except ValueError as error:
        raise CheckpointError(f"{path}: {key}: not readable as JSON: {error}") from error


def _config(path: Path, header: Mapping[str, str]) -> NetworkConfig:
    try:
        config = NetworkConfig.from_dict(_json(path, header, "config"))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if config.tracker != header["tracker"]:
        raise CheckpointError(
            f"{path}: tracker is {header['tracker']!r}, but its configuration is of {config.tracker!r}"
        )
    return config


def _fill(path: Path, network: TrackerNetwork, state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into ``network`` if names and shapes agree to the last one."""
    wanted = network.state_dict()
    differences = [f"{name} is missing" for name in wanted if name not in state]
    differences += [f"{name} is unknown" for name in state if name not in wanted]
    differences += [
        f"{name} is {list(state[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if differences:
        more = len(differences) - _SHOWN
        raise CheckpointError(
            f"{path}: the weights are not of this network: {'; '.join(differences[:_SHOWN])}"
            + (f"; and {more} more" if more > 0 else "")
        )
    network.load_state_dict(dict(state))
