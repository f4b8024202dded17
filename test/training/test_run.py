"""A whole run, small: it ends in a network, resumes, and says what is wrong before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.deployment.run_folder import read_card  # noqa: E402
from siam_tracker_ros.networks.checkpoint import load_network, read_metadata  # noqa: E402
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig  # noqa: E402
from siam_tracker_ros.training.config import TrainConfig, load_config  # noqa: E402
from siam_tracker_ros.training.run import train  # noqa: E402
from siam_tracker_ros.training.tar_sets import DataError  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "config" / "training"


def test_every_shipped_configuration_is_valid():
    found = sorted(CONFIGS.rglob("*.yaml"))
    assert {path.parent.name for path in found} == {"training", "published", "shipped"}
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


def test_a_run_goes_on_from_another_run_s_network(data_folder):
    first = train(small(data_folder), data_folder / "first", progress=False)
    unchanged = {"start": str(first), "optimiser.rate": 0.0, "run.seed": 2}
    second = train(small(data_folder, **unchanged), data_folder / "second", progress=False)
    before, after = (load_network(path).state_dict() for path in (first, second))
    assert all(
        torch.allclose(value, after[key], rtol=1e-5, atol=1e-6)
        for key, value in before.items()
        if key.endswith("weight") and "norm" not in key
    )
    told = read_metadata(second)["before"]
    assert (told["steps"], told["seed"]) == (2, 1)
    assert told["manifest"] == read_metadata(second)["manifest"]
    other = {"start": str(first), "network.head.width": 24}
    with pytest.raises(ConfigError, match=r"start: .*network\.safetensors: .* not of this network"):
        train(small(data_folder, **other), data_folder / "third", progress=False)


def test_a_teacher_is_imitated_and_not_part_of_the_network(data_folder, monkeypatch):
    class Grey:
        def __init__(self, file):
            assert file == data_folder / "peers" / "fear_xs_search.onnx"

        def __call__(self, crops):
            means = crops[:, :256, :256].reshape(-1, 16, 16, 16, 16, 3).mean(axis=(2, 4, 5))
            return np.repeat(means[:, None], 256, axis=1).astype(np.float16)

    monkeypatch.setattr("siam_tracker_ros.training.run.FeatureTeacher", Grey)
    config = small(data_folder, **{"teacher.kind": "fear_xs", "run.workers": 0})
    path = train(config, data_folder / "run", progress=False)
    assert not [k for k in load_network(path).state_dict() if "imitation" in k]
    assert read_metadata(path)["metrics"]["train/imitation"] > 0
    assert read_card(path).teachers[0]["name"] == "FEAR-XS"


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
