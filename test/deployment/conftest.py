"""Networks with random weights but lively maps, their graphs and a bundle, exported once."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from siam_tracker_ros.bundle import Bundle
from siam_tracker_ros.deployment.export import export_bundle
from siam_tracker_ros.deployment.graphs import Graph, export_graphs
from siam_tracker_ros.deployment.model_card import ModelCard
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.geometry import CropSpec
from siam_tracker_ros.networks.build import make_network as build_network
from siam_tracker_ros.networks.config import (
    DenseHeadConfig,
    NeckConfig,
    NetworkConfig,
    SVCCorrConfig,
)
from siam_tracker_ros.networks.siam_stm import SiamSTM
from siam_tracker_ros.training.config import load_config

CONFIGS = Path(__file__).parents[2] / "config" / "training"

SMALL = NetworkConfig(
    crop=CropSpec(65, 129),
    neck=NeckConfig(channels=16),
    matching=SVCCorrConfig(kernel=5, hidden=4),
    head=DenseHeadConfig(width=16, depth=1),
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lively(config: NetworkConfig, seed: int = 5) -> SiamSTM:
    """A network whose maps have hills, none of them saturated, and whose BatchNorms have statistics.

    Nothing hides behind zeros or ties.
    """
    torch.manual_seed(seed)
    network = SiamSTM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    crop, head = config.crop, network.head
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)
        state = network.template(noise(seed, crop.template))
        maps = network.search(state, noise(seed + 1, crop.search))
        size = 8.0 if config.decoder.size == "linear" else 0.0
        for layer, found, mean, spread in (
            (head.outputs["heat"][0], maps.heat, -2.0, 1.5),
            (head.outputs["offset"][0], maps.offset, 0.5, 0.3),
            (head.outputs["size"][0], maps.size, size, 0.3),
        ):
            scale = spread / found.std((0, 2, 3))
            layer.weight.mul_(scale.view(-1, 1, 1, 1))
            layer.bias.copy_(mean + (layer.bias - found.mean((0, 2, 3))) * scale)
    return network


def follower(config: NetworkConfig) -> SiamSTM:
    """A network that follows things without training: its heat is the correlation, its size is the template's.

    A network with random maps is chaotic: rounding alone parts its trajectories.
    """
    torch.manual_seed(5)
    network = SiamSTM(config).eval()
    matching, head = network.matching, network.head
    channels = config.neck.channels
    with torch.no_grad():
        # Features without their mean, of stride 8 alone: random, but different from place to place.
        network.neck.top.weight.zero_()
        network.neck.lateral.bias.sub_(network.extract(noise(3, 129)).mean((0, 2, 3)))
        for conv in (matching.mix[0], matching.phi2[0], head.classification[0][3]):
            conv.weight.zero_()
        matching.mix[0].weight[0, :channels] = 1 / channels  # the mean over channels: a cosine
        smooth, point = head.classification[0][0], head.classification[0][3]
        smooth.weight.zero_()
        smooth.weight[:, 0, 1, 1] = 1
        point.weight[0, 0] = 1
        heat, offset, size = (head.outputs[name][0] for name in ("heat", "offset", "size"))
        for layer in (heat, offset, size):
            layer.weight.zero_()
        heat.weight[0, 0] = 8.0
        heat.bias.fill_(-5.0)
        offset.bias.fill_(0.5)
        size.bias.fill_(math.log(config.crop.template / 2 / 64))
    return network


def noise(seed: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") * 255


@pytest.fixture(scope="session")
def make_network():
    return lively


@pytest.fixture(scope="session")
def small_config() -> NetworkConfig:
    return SMALL


@pytest.fixture(scope="session")
def light() -> SiamSTM:
    return lively(NetworkConfig())


@pytest.fixture(scope="session")
def light_graphs(light: SiamSTM) -> dict[str, Graph]:
    return export_graphs(light)


@pytest.fixture(scope="session")
def small() -> SiamSTM:
    return lively(SMALL)


@pytest.fixture(scope="session")
def small_export(small: SiamSTM, tmp_path_factory) -> tuple[Bundle, dict]:
    folder = tmp_path_factory.mktemp("models") / "small"
    card = ModelCard(summary="A network of the tests.")
    return export_bundle(
        small, folder, name="small", card=card, clips=[synthetic_sequence(320, 240, 30)]
    )


@pytest.fixture(scope="session")
def following() -> SiamSTM:
    return follower(SMALL)


@pytest.fixture(scope="session")
def small_bundle(small_export) -> Bundle:
    return small_export[0]


@pytest.fixture
def bundle_folder(small_bundle: Bundle) -> Path:
    return small_bundle.path


@pytest.fixture(scope="session")
def light_tracker():
    """Function: tracker -> the network of its light configuration, and its graphs; made once.

    Untrained, with weights that make different places look different.
    """

    @functools.cache
    def make(tracker: str):
        torch.manual_seed(3)
        config = load_config(CONFIGS / f"{tracker}_mobilenetv2.yaml")
        network = build_network(config.network).eval()
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(0, 0.1, generator=generator)
                elif name.endswith("running_var"):
                    buffer.uniform_(0.5, 1.5, generator=generator)
        return network, export_graphs(network)

    return make
