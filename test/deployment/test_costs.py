"""Parameters and multiply-adds of the paper's configuration, against the specification's table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from siam_tracker_ros.deployment.costs import measure_costs
from siam_tracker_ros.networks.config import (
    BackboneConfig,
    NetworkConfig,
)
from siam_tracker_ros.networks.siam_stm import SiamSTM

SHIPPED = Path(__file__).parents[2] / "config" / "training" / "siam_stm_resnet50.yaml"
PAPER = NetworkConfig.from_dict(yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["network"])

# part: parameters M, GMAC a frame. Matching is the correlation (.0078) and SVC (.690 M, .578).
TABLE = {
    "1x1": {
        "backbone": (8.543, 9.058),
        "neck": (0.263, 0.252),
        "matching": (0.690, 0.5858),
        "head": (3.543, 2.213),
        "total": (13.04, 12.11),
    },
    "3x3": {"backbone": (13.786, 14.096), "total": (18.28, 17.15)},
}


@pytest.mark.parametrize("shortcut", ["1x1", "3x3"])
def test_costs_of_the_paper(shortcut):
    config = dataclasses.replace(
        PAPER, backbone=BackboneConfig("atrous_resnet50", shortcut=shortcut)
    )
    costs = measure_costs(SiamSTM(config))
    measured = {p.name: (p.parameters / 1e6, p.macs / 1e9) for p in costs.parts}
    measured["total"] = (costs.parameters / 1e6, costs.macs / 1e9)
    for part, expected in TABLE[shortcut].items():
        assert measured[part] == pytest.approx(expected, rel=0.01), part
    once = costs.parts[0].template_macs / 1e9
    assert once == pytest.approx({"1x1": 2.129, "3x3": 3.309}[shortcut], rel=0.01)


def test_counting_leaves_the_network_as_it_was(small):
    small.train()
    assert measure_costs(small) == measure_costs(small)
    assert small.training
    assert "template" not in vars(small.matching)
    small.eval()


def test_correlation_is_counted_exactly():
    """Only the correlation is left of the matching: channels x response x kernel."""
    bare = dataclasses.replace(PAPER.matching, channel=False)
    costs = measure_costs(SiamSTM(dataclasses.replace(PAPER, matching=bare)))
    assert {p.name: p.macs for p in costs.parts}["matching"] == 256 * 25 * 25 * 7 * 7
