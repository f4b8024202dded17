"""PyTorch's side of a GPU run, on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from siam_tracker_ros.deployment.torch_speed import measure, network_of, search_arguments
from siam_tracker_ros.evaluation.agreement import StepRecord
from siam_tracker_ros.networks.config import ConfigError


def test_a_step_of_the_bundles_network_is_timed(small_config):
    config = small_config.to_dict()
    network = network_of(SimpleNamespace(name="a", provenance={"config": {"network": config}}))
    assert network.config == network_of(SimpleNamespace(provenance={"config": config})).config
    assert network.config == small_config
    crop = small_config.crop
    pictures = [np.zeros((n, n, 3), np.uint8) for n in (crop.template, crop.search)]
    recording = StepRecord("a", pictures[0], [pictures[1]] * 2, [(20.0, 30.0)] * 2, [None, None])
    bundle = SimpleNamespace(tuning=network.default_tuning)
    with torch.inference_mode():
        given = search_arguments(network, bundle, recording)
    assert given[0].shape == (crop.search, crop.search, 3) and given[1].tolist() == [20.0, 30.0]
    times = measure(network, given, "eager_fp32", 2, "cpu")["gpu_ms"]
    assert times["count"] == 2 and times["p50"] > 0


def test_a_bundle_that_does_not_name_its_network_is_refused():
    with pytest.raises(ConfigError, match="a: bundle"):
        network_of(SimpleNamespace(name="a", provenance={}))
