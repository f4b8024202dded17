"""Shards: the same views as from the originals, the same files from the same input, and what is wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from siam_tracker_ros.cli.main import app
from siam_tracker_ros.geometry import ArrayPicture, Box, CropSpec, context_side
from siam_tracker_ros.training import shards
from siam_tracker_ros.training.config import AugmentationConfig, DataConfig, SamplingConfig
from siam_tracker_ros.training.datasets.opening import open_set
from siam_tracker_ros.training.samples import SampleShape, SampleSource, split_sets
from siam_tracker_ros.training.tar_sets import DataError
from siam_tracker_ros.training.views import View

SPEC = importlib.util.spec_from_file_location("published", Path(__file__).with_name("published.py"))
made = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(made)

CROP = CropSpec(129, 257)
JITTER = AugmentationConfig(photometric=0.0, low_resolution=0.0, gray=0.0, surround=0.0)
REGIONS = (shards.Region(CROP, JITTER),)
SETTINGS = shards.PackSettings(REGIONS, quality=95, shard_mib=0.2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder set of smooth 900 x 700 pictures: stills with two objects each, and two videos."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(5)
    rows = []
    for i in range(10):
        ground = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        image = cv2.resize(ground, (900, 700), interpolation=cv2.INTER_CUBIC)
        # small ones, and one in the videos whose crops are reduced
        boxes = [[60 + 40 * i, 80, 44, 60], [500 - 30 * i, 500, 70, 50]]
        video = None
        if i > 3:
            video, boxes = f"clip{i % 2}", [[150 + 10 * i, 120, 330, 300]]
        for x, y, w, h in boxes:
            cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), (40, 40, 200), -1)
        (root / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"images/{i}.png"), image)
        objects = [{"box": b, "category": "red", "track": 1 if video else None} for b in boxes]
        if i in (6, 7):
            objects[0]["state"] = "absent"
        rows.append(
            {"image": f"images/{i}.png", "width": 900, "height": 700, "objects": objects, "video": video, "frame": i}
        )  # fmt: skip
    (root / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def packed(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "mine"
    original = open_set("mine", f"folder:{scenes}", "stop")
    manifest = shards.pack(original, out, SETTINGS, str(scenes))
    return original, out, manifest


def samples(image_set, sampling, count=24, augmentation=JITTER):
    source = SampleSource(
        [image_set],
        CROP,
        100.0,
        DataConfig(),
        SamplingConfig(
            **{"synthetic": 0.0, "distractor": 0.0, "occluder": 0.0, "absent": 0.0, **sampling}
        ),
        augmentation,
        3,
        SampleShape(2, 2),
    )
    return [source(index) for index in range(count)]


@pytest.mark.parametrize("kind", ["still", "video"])
def test_views_from_shards_are_those_from_the_originals(packed, kind):
    original, out, _ = packed
    again = open_set("mine", f"shards:{out}", "stop")
    chances = {"still": 0.0, "video": 0.0, kind: 1.0, "vanished": 0.5, "same_category": 0.2}
    for here, there in zip(samples(original, chances), samples(again, chances), strict=True):
        assert np.allclose(here.boxes, there.boxes, atol=1e-3)
        assert np.allclose(here.template_boxes, there.template_boxes, atol=1e-3)
        assert np.array_equal(here.visible, there.visible)
        assert np.allclose(here.related, there.related, atol=2e-3)
        for name in ("template", "searches"):
            difference = np.abs(getattr(here, name).astype(int) - getattr(there, name))
            assert difference.mean() < 2.0  # JPEG, and where crops are reduced their steps
            if kind == "still":
                assert np.percentile(difference, 99.5) < 40


def test_a_video_s_large_objects_are_reduced(packed):
    _, out, manifest = packed
    images = open_set("mine", f"shards:{out}", "stop")
    (track, _) = images.tracks.values()
    assert track[0].box.w == 330 / 4  # a px of the crop is 4.9 of the picture's
    assert sum(s["images"] for s in manifest["shards"]) == len(images.images) == 14
    assert images.stills[0].box.w == 44


def test_the_manifest_says_what_is_where(packed):
    original, out, manifest = packed
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert manifest["source_sha256"] == original.sha256 and manifest["set"] == "mine"
    assert len(manifest["shards"]) > 1
    images = open_set("mine", f"shards:{out}", "stop")
    data = DataConfig(holdout_every=20)
    for part, holdout in (("train", False), ("holdout", True)):
        (half,) = split_sets([images], data, holdout)
        assert manifest["splits"][part]["images"] == len(half.images)
    gone = [t for track in images.absent.values() for t in track]
    assert sorted(t.frame for t in gone) == [6, 7] and {t.state for t in gone} == {"absent"}


def test_the_same_input_makes_the_same_files_however_often_it_stopped(
    packed, tmp_path, monkeypatch
):
    original, first, _ = packed

    def files(out):
        return {p.name: p.read_bytes() for p in sorted(out.iterdir())}

    calls = []

    def full(self, done):
        calls.append(done)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return close(self, done)

    close = shards._Shard.close
    monkeypatch.setattr(shards._Shard, "close", full)
    out = tmp_path / "mine"
    source = json.loads((first / "packing.json").read_text())["source"]
    with pytest.raises(DataError, match="No space left on device; complete shards are kept"):
        shards.pack(original, out, SETTINGS, source)
    assert (out / "00000.npz").is_file() and not (out / "manifest.json").exists()
    with pytest.raises(DataError, match="packing did not come to its end"):
        open_set("mine", f"shards:{out}", "stop")
    shards.pack(original, out, SETTINGS, source, workers=2)
    assert files(out) == files(first)
    other = dataclasses.replace(SETTINGS, quality=80)
    with pytest.raises(DataError, match="holds shards with another settings"):
        shards.pack(original, out, other, source)


def test_shards_that_were_changed_or_are_too_tight_are_refused(packed, tmp_path):
    _, first, _ = packed
    out = tmp_path / "mine"
    out.mkdir()
    for file in first.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    images = open_set("mine", f"shards:{out}", "stop")
    wide = shards.Region(CropSpec(129, 257), AugmentationConfig(shift=120.0))
    with pytest.raises(DataError, match="pack them with this configuration"):
        shards.check_regions([images], [wide])
    shards.check_regions([images], REGIONS)
    with (out / "00001.tar").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match=r"00001\.tar: is not the file that manifest\.json names"):
        open_set("mine", f"shards:{out}", "stop")


def test_search_regions_lie_in_their_windows():
    """The corners of crops as SampleSource places them, around objects of many shapes."""
    rng = np.random.default_rng(0)
    source = object.__new__(SampleSource)
    source.crop, source.response, source.augmentation = CROP, 104.0, JITTER
    reached = []

    def cut(rng, view, crop, deformation, surround):
        mid = (crop.size - 1) / 2
        corners = np.array([[x, y] for x in (-mid, mid) for y in (-mid, mid)])
        reached.append(corners @ np.linalg.inv(deformation).T / crop.scale + (crop.cx, crop.cy))
        return np.zeros((crop.size, crop.size, 3), np.uint8)

    source._cut = cut
    small = ArrayPicture(np.zeros((8, 8, 3), np.uint8))
    inside = []
    for _ in range(60):
        w, h = np.exp(rng.uniform(np.log(12), np.log(70), 2))
        box = Box(2000.0, 2000.0, float(w), float(h))
        x0, y0, x1, y1, _ = SETTINGS.window(box, 4000, 4000)
        assert x1 - x0 < 2.8 * 257 / CROP.template * context_side(w, h)
        for _ in range(20):
            source._search(rng, View(small, box, (0, 0, 0)))
            x, y = reached.pop().T
            inside.append(x.min() >= x0 and y.min() >= y0 and x.max() < x1 and y.max() < y1)
    assert np.mean(inside) > 0.98


def test_the_verb_packs_measures_and_says_what_is_wrong(tmp_path):
    made.got10k(tmp_path / "train")
    run = CliRunner().invoke
    asked = ["pack", "--set", f"got10k={tmp_path / 'train'}"]
    result = run(app, [*asked, "--out", str(tmp_path / "out"), "--shard-mib", "0.01"])
    assert result.exit_code == 0, result.output
    assert "10 images in" in result.output
    packed = f"again=shards:{tmp_path / 'out' / 'got10k'}"
    result = run(
        app,
        [
            *asked,
            "--set",
            packed,
            "--benchmark",
            "--samples",
            "3",
            "--out",
            str(tmp_path / "b.json"),
        ],
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "b.json").read_text())
    assert [f["set"] for f in figures] == ["got10k", "again"]
    assert all(f["samples_per_s"] > 0 and f["images_per_s"] > 0 for f in figures)
    assert run(app, ["pack", "--set", "got10k", "--out", "x"]).exit_code == 2
    result = run(app, ["pack", "--set", f"coco={tmp_path / 'train'}", "--out", str(tmp_path / "c")])
    assert (
        result.exit_code == 2
        and "should hold annotations/instances_train2017.json" in result.output
    )
