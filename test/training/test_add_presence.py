"""What a run does about presence when it has ended."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from siam_tracker_ros.bundle import PresenceSpec
from siam_tracker_ros.deployment.presence_fit import Calibration, PresenceError, Quality
from siam_tracker_ros.deployment.run_folder import read_card, read_presence
from siam_tracker_ros.evaluation.presence import StateFigures
from siam_tracker_ros.evaluation.reliability import Bin
from siam_tracker_ros.networks.build import make_network
from siam_tracker_ros.networks.checkpoint import save_network
from siam_tracker_ros.networks.config import from_mapping
from siam_tracker_ros.training import run
from siam_tracker_ros.training.config import TrainConfig
from siam_tracker_ros.training.tar_sets import read_tar_set

SPEC = PresenceSpec("logistic", ("score",), (6.0,), -3.0, 0.5, 0.2)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, make_set):
    """Configuration, sets and network of a run that has ended."""
    folder = tmp_path_factory.mktemp("run")
    make_set(folder / "reds.tar", [([40 + 3 * i, 50, 60, 50], None) for i in range(20)])
    small = {"neck": {"channels": 16}, "matching": {"hidden": 4}, "head": {"width": 16, "depth": 1}}
    values = {
        "network": small,
        "data": {"sets": {"reds": 1.0}, "holdout_every": 1},
        "run": {"presence_clips": 6},
    }
    config = from_mapping(TrainConfig, values, "test")
    path = folder / "network.safetensors"
    save_network(path, make_network(config.network), {"seed": 1})
    return path, config, [read_tar_set(folder / "reds.tar")]


def test_a_run_that_cannot_be_calibrated_says_why_and_keeps_its_network(ended, monkeypatch):
    def fail(*_):
        raise PresenceError("too few looks")

    monkeypatch.setattr(run, "calibrate_network", fail)
    with pytest.warns(UserWarning, match="presence is not calibrated: too few looks"):
        run.add_presence(*ended)
    assert read_presence(ended[0]) == PresenceSpec()
    assert read_card(ended[0]).presence is None


def test_a_run_ends_with_a_presence_model_its_figures_and_a_diagram(ended, monkeypatch):
    pytest.importorskip("matplotlib")
    seen = []

    def calibrated(network, fit, check):
        seen.extend((len(fit), len(check)))
        states = StateFigures(4, 0.5, 11.0, 0.0, 2, 1.0, 3.0, 0.1)
        quality = Quality(0.9, 0.05, (Bin(0.5, 0.5, 10),), 10, 0.5, states)
        return Calibration(SPEC, quality, quality)

    monkeypatch.setattr(run, "calibrate_network", calibrated)
    run.add_presence(*ended)
    assert seen == [3, 3]
    assert read_presence(ended[0]) == SPEC
    card = read_card(ended[0])
    assert card.presence is not None and card.presence.rows[1]["AUROC"] == 0.9
    assert (ended[0].parent / "reliability.png").is_file()
    assert (ended[0].parent / "presence.json").is_file()
