"""The schedule, the freezing, and that a network learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from siam_tracker_ros.geometry import CropSpec  # noqa: E402
from siam_tracker_ros.networks.config import (  # noqa: E402
    BackboneConfig,
    ConfigError,
    DenseHeadConfig,
    NeckConfig,
    NetworkConfig,
    SVCCorrConfig,
)
from siam_tracker_ros.training.config import (  # noqa: E402
    OptimiserConfig,
    RunConfig,
    TrainConfig,
    load_config,
)
from siam_tracker_ros.training.datasets.opening import LAYOUTS  # noqa: E402
from siam_tracker_ros.training.module import TrackerModule  # noqa: E402
from siam_tracker_ros.training.schedules import (  # noqa: E402
    im_siam_rate,
    rate_factor,
    siam_stm_rate,
    spm_tracker_rate,
    stable_decay,
    stm_track_rate,
)

CONFIGS = Path(__file__).parents[2] / "config" / "training"

PAPER_RATES = [
    0.001,
    0.002,
    0.003,
    0.004,
    0.005,
    0.005,
    0.004242,
    0.003598,
    0.003053,
    0.00259,
    0.002197,
    0.001864,
    0.001581,
    0.001341,
    0.001138,
    0.000965,
    0.000819,
    0.000695,
    0.000589,
    0.0005,
]


def test_the_papers_learning_rates():
    assert [siam_stm_rate(e) for e in range(20)] == pytest.approx(PAPER_RATES, abs=1e-6)


def test_im_siams_rates():
    # The specification's list, epoch by epoch.
    listed = """.001 .002 .003 .004 .005 .004 .0032 .00256 .002048 .001638 .001311 .001049 .000839 .000671 .000537
        .000429 .000344 .000275 .00022 .000176"""
    assert [im_siam_rate(e) for e in range(20)] == pytest.approx(
        [float(v) for v in listed.split()], abs=6e-7
    )


def test_stm_tracks_rates_at_the_starts_of_its_epochs():
    listed = """.08 .079454 .077833 .075179 .071566 .067091 .061878 .056068 .04982 .043304 .036697 .030181 .023933
        .018123 .01291 .008435 .004822 .002168 .000547"""
    assert [stm_track_rate(e) for e in range(1, 20)] == pytest.approx(
        [float(v) for v in listed.split()], abs=6e-7
    )
    assert (stm_track_rate(0.0), stm_track_rate(0.5)) == pytest.approx((0.01, 0.045))


def test_spm_trackers_rates():
    rates = [spm_tracker_rate(e) for e in (0, 1, 10, 25, 40, 49)]
    assert rates == pytest.approx([0.01, 0.009103, 0.003907, 0.000954, 0.000233, 0.0001], abs=5e-7)


def test_a_papers_schedule_steps_by_the_epoch_of_the_step():
    config = OptimiserConfig(rate=0.005, schedule="siam_stm")
    rates = [0.005 * rate_factor(config, step, 200, 20) for step in range(200)]
    assert rates == pytest.approx([siam_stm_rate(step // 10) for step in range(200)])


def test_stable_decay_warms_up_stays_and_ends_low():
    config = OptimiserConfig(warmup_steps=10, decay=0.5, final=0.01)
    assert stable_decay(0, 100, config) == pytest.approx(0.1)
    assert stable_decay(30, 100, config) == 1.0
    assert stable_decay(100, 100, config) == pytest.approx(0.01)


def test_the_papers_freezing_schedule():
    network = NetworkConfig(
        crop=CropSpec(127, 255),
        backbone=BackboneConfig("atrous_resnet50"),
        neck=NeckConfig("adjust", 16),
        matching=SVCCorrConfig(kernel=7, hidden=4, pixel=False),
        head=DenseHeadConfig(width=16, depth=1),
    )
    module = TrackerModule(
        TrainConfig(
            network=network, optimiser=OptimiserConfig(trainable={"layer2": 10, "layer3": 10})
        ),
        None,
        1,
    )

    def trains():
        stages = module.network.backbone.stages()
        return {
            name
            for name, stage in stages.items()
            if all(p.requires_grad for p in stage.parameters())
        }

    module.set_trainable(9)
    assert trains() == set()
    module.set_trainable(10)
    assert trains() == {"layer2", "layer3"}


def test_an_unknown_stage_is_named():
    with pytest.raises(ConfigError, match=r"optimiser.trainable.layer9.*mobilenetv2_100"):
        TrackerModule(TrainConfig(optimiser=OptimiserConfig(trainable={"layer9": 0})), None, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: {epoch: 3}", r"run.epoch: unknown; known keys are"),
        ("run: {epochs: many}", r"run.epochs: int is wanted, got 'many'"),
        ("loss: {box: iou}", r"loss.box: 'iou' is not one of center_l1, dense_giou"),
        ("network: {crop: {template: 128, search: 257}}", r"crop.template must be odd"),
    ],
)
def test_a_wrong_configuration_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert "bad.yaml" in str(caught.value)


def test_overrides_change_single_keys(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("run: {epochs: 3}")
    config = load_config(path, ["run.epochs=7", "loss.arm=0.0"])
    assert (config.run.epochs, config.loss.arm) == (7, 0.0)


def test_a_configuration_on_top_of_another(tmp_path):
    (tmp_path / "first.yaml").write_text(
        "data: {sets: {a: 1.0, b: 2.0}, on_error: skip}\nrun: {epochs: 3, batch: 8}"
    )
    (tmp_path / "deep").mkdir()
    second = tmp_path / "deep" / "second.yaml"
    second.write_text("base: ../first.yaml\ndata: {sets: {c: 1.0}}\nrun: {epochs: 5}")
    config = load_config(second, ["run.seed=4"])
    assert config.data.sets == {"c": 1.0}  # a key is replaced as a whole
    assert config.data.on_error == "skip"
    assert (config.run.epochs, config.run.batch, config.run.seed) == (5, 8, 4)
    (tmp_path / "first.yaml").write_text("base: deep/second.yaml")
    with pytest.raises(ConfigError, match=r"first\.yaml: base: .* is based on this file itself"):
        load_config(second)
    second.write_text("base: ../absent.yaml")
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_config(second)
    second.write_text("base: [1]")
    with pytest.raises(ConfigError, match=r"second\.yaml: base: a file's path is wanted"):
        load_config(second)


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "published").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_papers_sets_change_nothing_but_the_data(path):
    config, plain = load_config(path), load_config(CONFIGS / path.name)
    assert replace(config, data=plain.data) == plain
    assert set(config.data.sources) == set(config.data.sets)
    assert all(source.split(":")[0] in LAYOUTS for source in config.data.sources.values())


def test_every_paper_has_its_sets():
    papers = {p.name for p in CONFIGS.glob("*.yaml") if "mobilenetv2" not in p.name}
    assert {p.name for p in (CONFIGS / "published").glob("*.yaml")} == papers


def test_it_overfits_one_batch():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = TrainConfig(
        network=NetworkConfig(
            neck=NeckConfig("pyramid", 32),
            matching=SVCCorrConfig(hidden=8),
            head=DenseHeadConfig(width=32, depth=1),
        ),
        optimiser=OptimiserConfig(rate=3e-3, trainable={}),
        run=RunConfig(precision="32-true"),
    )
    module = TrackerModule(config, None, 100).train()
    generator = torch.Generator().manual_seed(1)
    searches = torch.randint(0, 255, (4, 2, 257, 257, 3), generator=generator, dtype=torch.uint8)
    searches = (searches // 8) + 60  # a dim, noisy field
    boxes = torch.tensor([[110.0, 140.0, 70.0, 50.0], [150.0, 120.0, 40.0, 80.0]]).repeat(4, 1, 1)
    template = torch.full((4, 129, 129, 3), 80, dtype=torch.uint8)
    template[:, 32:97, 32:97] = 230
    templates = template[:, None]
    for i in range(4):
        for j in range(2):
            cx, cy, w, h = boxes[i, j].int().tolist()
            searches[i, j, cy - h // 2 : cy + h // 2, cx - w // 2 : cx + w // 2] = 230
    batch = {
        "template": templates,
        "searches": searches,
        "boxes": boxes,
        "visible": torch.ones(4, 2),
    }
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3)
    first = None
    for _ in range(40):
        total, _, picked, _ = module.objective(module.network, batch)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        first = first or total.item()
    assert total.item() < 0.25 * first
    assert (picked - boxes).abs().max() < 12
