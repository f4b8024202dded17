"""A whole run, small: it ends in a network, resumes, and says what is wrong before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.networks.checkpoint import load_network  # noqa: E402
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig  # noqa: E402
from siam_tracker_ros.training.config import TrainConfig, load_config  # noqa: E402
from siam_tracker_ros.training.run import train  # noqa: E402
from siam_tracker_ros.training.tar_sets import DataError  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "config" / "training"


def test_every_shipped_configuration_is_valid():
    found = sorted(CONFIGS.glob("*.yaml"))
    assert found
    for path in found:
        assert load_config(path).network.tracker in path.stem


def test_the_default_model_is_the_shipped_light_configuration():
    assert load_config(CONFIGS / "siam_stm_mobilenetv2.yaml").network == NetworkConfig()


@pytest.fixture
def data_folder(tmp_path, monkeypatch, make_set):
    (tmp_path / "train").mkdir()
    boxes = [([40 + 3 * i, 50 + i, 60, 50], "clip" if i > 5 else None) for i in range(12)]
    make_set(tmp_path / "train" / "reds.tar", boxes)
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    return tmp_path


def small(tmp_path, **changes):
    path = tmp_path / "small.yaml"
    path.write_text(
        """
network: {neck: {channels: 16}, matching: {hidden: 4}, head: {width: 16, depth: 1}}
pretrained: none
data: {sets: {reds: 1.0}, holdout_every: 3}
optimiser: {warmup_steps: 0}
run: {epochs: 1, samples_per_epoch: 8, batch: 4, workers: 1, validation_samples: 4,
    checkpoint_every: 1, precision: 32-true, presence_clips: 0}
"""
    )
    return load_config(path, [f"{k}={v}" for k, v in changes.items()])


def test_a_run_ends_in_a_network_and_resumes(data_folder):
    out = data_folder / "run"
    path = train(small(data_folder), out, progress=False)
    first = load_network(path)
    assert first.config.head.width == 16
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sets"]["reds"]["images"] == 12
    assert (out / "config.yaml").is_file()
    assert list((out / "tensorboard").glob("events.*"))

    train(small(data_folder, **{"run.epochs": 2}), out, resume=True, progress=False)
    state = torch.load(out / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    assert (state["epoch"], state["global_step"]) == (1, 4)
    again = load_network(path)
    # The moving average rounds, so "unchanged" means to single precision.
    state, before = again.state_dict(), first.state_dict()
    changed = [
        k for k, v in before.items() if not torch.allclose(v, state[k], rtol=1e-5, atol=1e-7)
    ]
    assert any(name.startswith("head.") for name in changed)
    assert not [name for name in changed if name.startswith("backbone.early")]


def test_missing_data_is_named_before_anything_is_trained(data_folder):
    with pytest.raises(DataError, match=r"blues.tar: no such training set"):
        train(
            small(data_folder, **{"data.sets": "{blues: 1.0}"}), data_folder / "run", progress=False
        )
    with pytest.raises(ConfigError, match="names no training set"):
        train(TrainConfig(), data_folder / "run", progress=False)
    with pytest.raises(ConfigError, match=r"pretrained: .*nowhere.safetensors is no file"):
        train(
            small(data_folder, pretrained="nowhere.safetensors"),
            data_folder / "run",
            progress=False,
        )


def test_a_missing_folder_of_cutouts_is_said(data_folder):
    with pytest.warns(UserWarning, match=r"data.cutouts: /nowhere is no folder"):
        train(
            small(data_folder, **{"data.cutouts": "[/nowhere]"}),
            data_folder / "run",
            progress=False,
        )
