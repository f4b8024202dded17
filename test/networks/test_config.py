"""Network configurations: read from YAML, and refused with both places and both numbers where parts do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from siam_tracker_ros.networks.config import ConfigError, NetworkConfig
from siam_tracker_ros.networks.siam_stm import SiamSTM

# The `network:` section of config/training/siam_stm_resnet50.yaml.
PAPER = """
tracker: siam_stm
crop: {template: 127, search: 255, context: 0.5}
backbone: {kind: atrous_resnet50, shortcut: 1x1}
neck: {kind: adjust, channels: 256}
matching: {kind: svc_corr, kernel: 7, hidden: 64, channel: true, separable: false, pixel: false}
head: {width: 256, depth: 3, separable: false}
temporal: {kind: response_arm, candidates: 3, peaks: maxima, update: previous}
decoder: {kind: center, size: linear}
"""


def test_papers_section_is_the_papers_configuration(paper_config):
    assert NetworkConfig.from_dict(yaml.safe_load(PAPER)) == paper_config


@pytest.mark.parametrize("name", ["siam_stm_resnet50", "siam_stm_mobilenetv2"])
def test_shipped_configurations_can_be_read(name, paper_config):
    file = Path(__file__).parents[2] / "config" / "training" / f"{name}.yaml"
    section = yaml.safe_load(file.read_text(encoding="utf-8"))["network"]
    expected = paper_config if name == "siam_stm_resnet50" else NetworkConfig()
    assert NetworkConfig.from_dict(section) == expected


def test_configuration_survives_yaml(paper_config):
    text = yaml.safe_dump(paper_config.to_dict())
    assert NetworkConfig.from_dict(yaml.safe_load(text)) == paper_config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bakcbone": {}}, r"network\.bakcbone: unknown; known keys are backbone, crop"),
        ({"matching": {"kernal": 7}}, r"network\.matching\.kernal: unknown"),
        ({"head": {"width": "wide"}}, r"network\.head\.width: int is wanted, got 'wide'"),
        ({"head": {"separable": 1}}, r"network\.head\.separable: bool is wanted, got 1"),
        ({"head": {"width": 0}}, r"network\.head: width must be at least 1, got 0"),
        ({"neck": {"kind": "fpn"}}, r"network\.neck\.kind: 'fpn' is not one of adjust, pyramid"),
        ({"crop": {"template": 128, "search": 257}}, r"network\.crop: .*template.* odd.* 128"),
        ({"temporal": 3}, r"network\.temporal: a mapping is wanted, got 3"),
    ],
)
def test_wrong_keys_and_values_name_their_place(change, message):
    with pytest.raises(ConfigError, match=message):
        NetworkConfig.from_dict(change)


MISFITS = [
    (
        {"backbone": {"kind": "atrous_resnet50"}},
        r"neck\.kind pyramid needs maps at strides \(8, 16\), backbone\.kind atrous_resnet50 has \(8,\)",
    ),
    (
        {"neck": {"kind": "adjust"}},
        r"neck\.kind adjust needs a last map of stride 8, backbone\.kind mobilenetv2_100 has 16",
    ),
    (
        {"crop": {"template": 127, "search": 255}},
        r"crop\.template = 127: backbone\.kind mobilenetv2_100 .*; 129 fits",
    ),
    (
        {"crop": {"template": 129, "search": 251}},
        r"crop\.search = 251: backbone\.kind mobilenetv2_100 .*; 257 fits",
    ),
    (
        {"backbone": {"kind": "atrous_resnet50"}, "neck": {"kind": "adjust"}},
        r"crop\.template = 129: backbone\.kind atrous_resnet50 .*; 127 fits",
    ),
    (
        {"matching": {"kernel": 19}},
        r"matching\.kernel = 19 cells, but crop\.template = 129 px gives only 17",
    ),
    ({"matching": {"kernel": 8}}, r"matching\.kernel must be odd and at least 5, got 8"),
    (
        {"crop": {"template": 129, "search": 145}, "matching": {"kernel": 17}},
        r"crop\.search = 145 px and matching\.kernel = 17 give a response of 3 cells",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISFITS)
def test_parts_that_do_not_fit_name_both_places_and_numbers(change, message):
    with pytest.raises(ConfigError, match=message):
        SiamSTM(NetworkConfig.from_dict(change))
