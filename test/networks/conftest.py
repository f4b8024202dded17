"""Networks of the tests: the paper's configuration and the light one that ships, both with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from siam_tracker_ros.networks.config import (
    NetworkConfig,
)
from siam_tracker_ros.networks.siam_stm import SiamSTM

SHIPPED = Path(__file__).parents[2] / "config" / "training" / "siam_stm_resnet50.yaml"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def paper_config() -> NetworkConfig:
    """The network of the configuration that ships as the paper's."""
    return NetworkConfig.from_dict(yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["network"])


def lively(network: SiamSTM) -> SiamSTM:
    """Give an untrained network a heatmap with hills in it, sizes that differ, and BatchNorm statistics of its own."""
    generator = torch.Generator().manual_seed(5)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    network.head.outputs["heat"][0].weight.normal_(0, 0.5, generator=generator)
    network.head.outputs["size"][0].weight.normal_(0, 0.2, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def paper(paper_config: NetworkConfig) -> SiamSTM:
    torch.manual_seed(1)
    with torch.no_grad():
        return lively(SiamSTM(paper_config))


@pytest.fixture(scope="module")
def light() -> SiamSTM:
    torch.manual_seed(1)
    with torch.no_grad():
        return lively(SiamSTM(NetworkConfig()))
