"""Imitating a published tracker: its features of the searches, and what is learnt from them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from siam_tracker_ros.evaluation.data_root import data_root  # noqa: E402
from siam_tracker_ros.networks.backbones import make_backbone  # noqa: E402
from siam_tracker_ros.networks.config import BackboneConfig, ConfigError  # noqa: E402
from siam_tracker_ros.training.teacher import FEATURES, FeatureTeacher, Imitation  # noqa: E402


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A graph like FEAR-XS': mean colours of 16 px cells, 256 times over, then something with the template."""
    kernel = np.full((256, 3, 16, 16), 1 / 768, np.float32)
    kernel *= np.linspace(1, 2, 256, dtype=np.float32)[:, None, None, None]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], [FEATURES], strides=[16, 16]),
        helper.make_node("ReduceMean", ["template_features"], ["level"], keepdims=0),
        helper.make_node("Add", [FEATURES, "level"], ["cls"]),
    ]
    graph = helper.make_graph(
        nodes,
        "search",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 256, 256]),
            helper.make_tensor_value_info("template_features", TensorProto.FLOAT, [1, 256, 8, 8]),
        ],
        [helper.make_tensor_value_info("cls", TensorProto.FLOAT, [1, 256, 16, 16])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    path = tmp_path_factory.mktemp("peers") / "fear_xs_search.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def test_the_features_are_of_the_upper_left_256_px(file):
    crops = np.zeros((2, 257, 257, 3), np.uint8)
    crops[1, 32:48, 64:80] = (30, 60, 90)
    features = FeatureTeacher(file)(crops)
    assert features.shape == (2, 256, 16, 16)
    assert features.dtype == np.float16
    assert not features[0].any()
    assert features[1, 0, 2, 4] == pytest.approx(60, rel=1e-3)
    assert features[1, 255, 2, 4] == pytest.approx(120, rel=1e-3)
    assert np.count_nonzero(features[1, 0]) == 1


def test_a_missing_teacher_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"teacher\.kind: fear_xs wants .*absent\.onnx"):
        FeatureTeacher(tmp_path / "absent.onnx")


def test_a_backbone_learns_to_imitate():
    torch.manual_seed(0)
    backbone = make_backbone(BackboneConfig("mobilenetv2_100"), None)
    imitation = Imitation(backbone, 257)
    # What is to be imitated is what the backbone says itself, through another projection.
    search = 255 * torch.rand(2, 3, 257, 257)
    with torch.no_grad():
        deep = backbone(search)[-1][:, :, :16, :16]
        wanted = torch.einsum("oc,bchw->bohw", torch.randn(256, deep.shape[1]), deep)
    optimiser = torch.optim.Adam(imitation.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        backbone(255 * torch.rand(2, 3, 129, 129))  # templates are not compared
        backbone(search)
        loss = imitation(wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_nothing_is_remembered_outside_of_training():
    backbone = make_backbone(BackboneConfig("mobilenetv2_100"), None)
    imitation = Imitation(backbone, 257)
    picture = torch.zeros(1, 3, 257, 257)
    with torch.no_grad():
        backbone(picture)
    imitation.eval()
    backbone(picture)
    assert not imitation._seen


@pytest.mark.parametrize("side", [129, 289])
def test_a_backbone_on_another_grid_is_refused(side):
    with pytest.raises(ConfigError, match=r"teacher: .*crop\.search: 257"):
        Imitation(make_backbone(BackboneConfig("mobilenetv2_100"), None), side)


@pytest.mark.data
def test_fear_xs_has_these_features():
    root = data_root()
    assert root is not None
    teacher = FeatureTeacher(root / "peers" / "fear_xs_search.onnx")
    rng = np.random.default_rng(0)
    crop = np.kron(rng.integers(0, 255, (9, 9, 3)), np.ones((32, 32, 1))).astype(np.uint8)[
        None, :257, :257
    ]
    features = teacher(crop)
    assert features.shape == (1, 256, 16, 16)
    assert np.isfinite(features).all()
    assert features.std() > 0.1
