"""Checkpoints: what is saved comes back, and what does not fit is refused with what differs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from siam_tracker_ros.networks.checkpoint import (
    CheckpointError,
    load_network,
    load_weights,
    read_config,
    read_metadata,
    save_network,
)
from siam_tracker_ros.networks.config import DenseHeadConfig, NetworkConfig
from siam_tracker_ros.networks.siam_stm import SiamSTM


@pytest.fixture
def saved(tmp_path, light):
    path = tmp_path / "network.safetensors"
    save_network(path, light, {"steps": 7, "metrics": {"val/iou": 0.5}})
    return path


def rewritten(path, changes=None, drop=(), **header):
    """The same file with tensors replaced or dropped, and header entries changed."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **header}
    state = {k: v for k, v in load_file(path).items() if k not in drop}
    save_file({**state, **(changes or {})}, path, metadata)


def test_network_comes_back(saved, light):
    loaded = load_network(saved)
    assert loaded.config == light.config
    assert not loaded.training
    for name, tensor in light.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert read_config(saved) == light.config
    assert read_metadata(saved) == {"steps": 7, "metrics": {"val/iou": 0.5}}


def test_memory_format_and_gradients_do_not_matter(tmp_path, light):
    network = SiamSTM(light.config).to(memory_format=torch.channels_last)
    path = tmp_path / "deep" / "network.safetensors"
    save_network(path, network)
    assert torch.equal(
        load_network(path).head.outputs.heat[0].weight, network.head.outputs.heat[0].weight
    )
    assert [f.name for f in path.parent.iterdir()] == ["network.safetensors"]


def test_failed_save_leaves_the_old_file(saved, light):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save_network(saved, light, {"steps": object()})
    assert saved.read_bytes() == before


def test_weights_into_a_network_that_exists(saved, light):
    network = SiamSTM(light.config)
    load_weights(saved, network)
    assert torch.equal(network.head.outputs.heat[0].weight, light.head.outputs.heat[0].weight)


def test_other_shapes_are_refused_and_leave_the_network_as_it_was(saved):
    network = SiamSTM(NetworkConfig(head=DenseHeadConfig(width=32, depth=2)))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(saved, network)
    assert "classification.2.0.weight is unknown" in str(error.value)
    assert "and" in str(error.value) and "more" in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_one_other_shape_is_named_with_both_shapes(saved):
    rewritten(saved, {"head.outputs.heat.0.weight": torch.zeros(1, 48, 1, 1)})
    with pytest.raises(
        CheckpointError,
        match=r"head\.outputs\.heat\.0\.weight is \[1, 48, 1, 1\], not \[1, 96, 1, 1\]",
    ):
        load_network(saved)


def test_missing_and_unknown_weights_are_named(saved):
    rewritten(saved, {"head.mask.weight": torch.zeros(1)}, drop=("head.outputs.size.0.bias",))
    with pytest.raises(
        CheckpointError,
        match=r"head\.outputs\.size\.0\.bias is missing; head\.mask\.weight is unknown",
    ):
        load_network(saved)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            {"tracker": "ostrack"},
            "tracker is 'ostrack', known is siam_stm, im_siam, stm_track, spm",
        ),
        (
            {"tracker": "stm_track"},
            "tracker is 'stm_track', but its configuration is of 'siam_stm'",
        ),
        ({"version": "2"}, "version is '2', this program reads 1"),
        ({"format": "pt"}, "no checkpoint of this project: format is 'pt'"),
        ({"config": "{"}, "config: not readable as JSON"),
        ({"config": json.dumps({"heads": {}})}, r"network\.heads: unknown"),
        ({"metadata": "[]"}, "metadata: a mapping is wanted"),
    ],
)
def test_header_of_another_kind_is_refused(saved, header, message):
    rewritten(saved, **header)
    with pytest.raises(CheckpointError, match=message):
        load_network(saved)
        read_metadata(saved)


def test_files_that_are_no_checkpoints(tmp_path):
    for content in (None, b"", b"PK\x03\x04 a pickled checkpoint", b"\xff" * 64):
        path = tmp_path / "other.safetensors"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"other\.safetensors: not readable as safetensors"
        ):
            load_network(path)
