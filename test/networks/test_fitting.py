"""Parts that do not fit are refused at construction, with both places and both numbers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from siam_tracker_ros.networks.build import TRACKERS, make_network
from siam_tracker_ros.networks.config import ConfigError, NetworkConfig

CONFIGS = Path(__file__).parents[2] / "config" / "training"


def network(name: str, **parts):
    values = copy.deepcopy(
        yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["network"]
    )
    for part, changes in parts.items():
        values[part] = {**values[part], **changes}
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            network("siam_stm_mobilenetv2", crop={"search": 255}),
            r"crop\.search = 255: backbone\.kind mobilenetv2_100 .* 257 fits",
        ),
        (
            network("siam_stm_mobilenetv2", matching={"kernel": 19}),
            r"matching\.kernel = 19 cells, but crop\.template = 129 px gives only 17",
        ),
        (
            network("siam_stm_resnet50", neck={"kind": "pyramid"}),
            r"neck\.kind pyramid needs maps at strides \(8, 16\), backbone\.kind atrous_resnet50 has \(8,\)",
        ),
        (
            network("siam_stm_mobilenetv2", neck={"kind": "conv"}),
            r"neck\.kind conv does not go with tracker siam_stm",
        ),
        (
            network("im_siam_mobilenetv2", matching={"cells": 19}),
            r"matching\.cells = 19 cells, but crop\.template = 129 px gives only 17",
        ),
        (
            network("im_siam_mobilenetv2", backbone={"levels": ["early", "layer4"]}),
            "layer4",
        ),
        (
            network("stm_track_mobilenetv2", neck={"margin": 15}),
            r"neck\.margin = 15 leaves -?\d+ of the \d+ cells of crop\.(template|search)",
        ),
        (
            network("stm_track_mobilenetv2", temporal={"slots": 3}),
            r"network\.temporal: frames must be at least 3 and at most slots, got 6 of 3",
        ),
        (
            network("spm_tracker_mobilenetv2", matching={"template_cells": 19}),
            r"matching\.template_cells = 19, but crop\.template = 129 px gives only 17",
        ),
        (
            network("spm_tracker_mobilenetv2", matching={"template_cells": 8}),
            r"matching\.template_cells = 8 of 17 and matching\.search_cells = 25 of 33 do not lie alike",
        ),
        (
            network("spm_tracker_mobilenetv2", head={"kind": "dense"}),
            r"network\.head\.\w+: unknown",
        ),
        (
            {"tracker": "im_siam"},
            r"network: tracker im_siam needs matching\.kind adaptive, got svc_corr",
        ),
        ({"tracker": "siamfc"}, r"network\.tracker: 'siamfc' is not one of siam_stm, im_siam"),
        ({"matching": {"kind": "xcorr"}}, r"network\.matching\.kind: 'xcorr' is not one of svc_"),
    ],
)
def test_misfits_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        make_network(NetworkConfig.from_dict(values))


@pytest.mark.parametrize("tracker", list(TRACKERS))
def test_a_configuration_reads_back(tracker):
    config = NetworkConfig.from_dict(network(f"{tracker}_mobilenetv2"))
    assert config.tracker == tracker
    assert NetworkConfig.from_dict(config.to_dict()) == config
    assert make_network(config).config == config
