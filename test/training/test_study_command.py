"""``siam-tracker study`` on two tiny configurations: every run is made once, scored and put in the table."""

from __future__ import annotations

import json

import cv2
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from typer.testing import CliRunner

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.main import app
from siam_tracker_ros.cli.study import Entry
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence

TINY = """
network: {neck: {channels: 16}, matching: {hidden: 4, channel: CHANNEL}, head: {width: 16, depth: 1}}
pretrained: none
data: {sets: {reds: 1.0}, holdout_every: 3}
optimiser: {warmup_steps: 0}
run: {epochs: 1, samples_per_epoch: 8, batch: 4, workers: 0, validation_samples: 4,
    checkpoint_every: 1, precision: 32-true, presence_clips: 0}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, make_set):
    """Data with one set, two configurations and a clip in OTB layout."""
    (tmp_path / "train").mkdir()
    boxes = [([40 + 3 * i, 50 + i, 60, 50], None) for i in range(12)]
    make_set(tmp_path / "train" / "reds.tar", boxes)
    monkeypatch.setenv("SIAM_TRACKER_DATA", str(tmp_path))
    for name, channel in (("with", "true"), ("without", "false")):
        (tmp_path / f"{name}.yaml").write_text(TINY.replace("CHANNEL", channel))
    clip = synthetic_sequence(320, 240, 5)
    images = tmp_path / "clips" / "thing" / "img"
    images.mkdir(parents=True)
    for index, frame in enumerate(clip, 1):
        cv2.imwrite(str(images / f"{index:04}.jpg"), frame)
    lines = [",".join(str(v) for v in (x + 1, y + 1, w, h)) for x, y, w, h in clip.boxes]
    (images.parent / "groundtruth_rect.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_configurations_and_seeds(folder):
    words = ["study", str(folder / "with.yaml"), str(folder / "without.yaml"), "--seeds", "1"]
    words += ["--out", str(folder / "out"), "--sequences", str(folder / "clips")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "out" / "study.json").read_text())
    assert (found["seeds"], found["sequences"]) == (1, ["thing"])
    entries = found["entries"]
    assert [entry["name"] for entry in entries] == ["with", "without"]
    assert entries[0]["parameters"] > entries[1]["parameters"]
    for entry in entries:
        assert len(entry["trained"]) == 1
        assert all(0 <= seed["auc"] <= 1 for seed in (*entry["trained"], entry["untrained"]))
    table = (folder / "out" / "study.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| with", "| without"]
    # Nothing is made twice, and nothing made otherwise passes for it.
    before = (folder / "out" / "models" / "with_seed1" / "bundle.yaml").stat().st_mtime_ns
    more = [w for w in words if "without" not in w]
    more[more.index("--seeds") + 1] = "2"
    assert CliRunner().invoke(app, more).exit_code == 0
    seeds = [load_bundle(folder / "out" / "models" / f"with_seed{n}") for n in (1, 2)]
    assert [b.provenance["config"]["run"]["seed"] for b in seeds] == [1, 2]
    assert seeds[0].files["search.onnx"] != seeds[1].files["search.onnx"]
    assert (folder / "out" / "models" / "with_seed1" / "bundle.yaml").stat().st_mtime_ns == before
    other = CliRunner().invoke(app, [*words, "--set", "run.batch=8"])
    assert other.exit_code == 2
    assert "was made by another configuration" in other.stderr


def test_variants_are_the_configuration_with_a_part_changed(folder):
    words = ["study", str(folder / "with.yaml"), "--seeds", "1", "--out", str(folder / "out")]
    words += ["--sequences", str(folder / "clips")]
    words += ["--variant", "no channel:network.matching.channel=false"]
    words += ["--variant", "no ARM:loss.arm=0; tuning.arm=0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    entries = json.loads((folder / "out" / "study.json").read_text())["entries"]
    assert [entry["name"] for entry in entries] == ["with", "with_no_channel", "with_no_ARM"]
    assert entries[0]["parameters"] == entries[2]["parameters"] > entries[1]["parameters"]
    assert [entry["base"] for entry in entries] == [None, "with", "with"]
    assert [entry["untrained"] is None for entry in entries] == [False, True, True]
    head, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (folder / "out" / "study.md").read_text().splitlines()
    ]
    difference = head.index("AUC - base")
    assert lines[0][difference] == "" and lines[0][difference + 1] == ""
    for line, entry in zip(lines[1:], entries[1:], strict=True):
        found = entry["trained"][0]["auc"] - entries[0]["trained"][0]["auc"]
        assert line[difference] == f"{found:+.3f}"
        assert line[difference + 1] == ""  # one seed has no spread
    plain, _, other = (
        load_bundle(folder / "out" / "models" / f"{entry['name']}_seed1") for entry in entries
    )
    assert (plain.tuning["arm"], other.tuning["arm"]) == (1.0, 0.0)
    assert other.provenance["config"]["loss"]["arm"] == 0
    # A name that stood for another tuning does not pass for this one.
    words[-1] = "no ARM:loss.arm=0; tuning.arm=0.5"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert "was made by another configuration" in again.stderr


def test_differences_are_taken_seed_by_seed():
    def entry(name, *figures, base=None):
        return Entry(name, 1, 1, None, [{"auc": a, "sr75": a} for a in figures], base)

    whole, part = entry("whole", 0.5, 0.6, 0.7), entry("part", 0.4, 0.5, 0.6, base="whole")
    mean, spread = part.minus(whole, "auc")
    assert (mean, spread) == (pytest.approx(-0.1), pytest.approx(0))
    assert part.spread("auc") == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no channel", "NAME:KEY=VALUE is wanted"),
        ("none:", "NAME:KEY=VALUE is wanted"),
        ("../up:loss.arm=0", "NAME:KEY=VALUE is wanted"),
        ("arm:tuning.arm=off", "tuning.arm takes a number"),
    ],
)
def test_variants_that_are_none(folder, text, message):
    result = CliRunner().invoke(app, ["study", str(folder / "with.yaml"), "--variant", text])
    assert result.exit_code == 2
    assert message in result.stderr
