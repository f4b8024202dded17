"""What a training run's folder tells becomes provenance and model card."""

from __future__ import annotations

import json

import pytest
import yaml

from siam_tracker_ros.bundle import PresenceSpec
from siam_tracker_ros.deployment.model_card import CardError
from siam_tracker_ros.deployment.presence_fit import presence_data
from siam_tracker_ros.deployment.run_folder import read_card, read_presence, read_provenance
from siam_tracker_ros.networks.checkpoint import save_network

MANIFEST = {
    "sets": {
        "coco256": {"sha256": "ab", "images": 256, "stills": 256, "tracks": 0, "skipped": 0},
        "davis8": {"sha256": "cd", "images": 482, "stills": 0, "tracks": 8, "skipped": 0},
    },
    "cutouts": {"files": 12, "sha256": "ef"},
    "holdout": {"videos": ["libby"], "every": 20},
    "sha256": "0123",
}
CONFIG = {
    "network": {"backbone": {"kind": "mobilenetv2_100"}},
    "pretrained": "auto",
    "run": {"batch": 16},
}


@pytest.fixture
def run(tmp_path, small):
    """The folder that `siam-tracker train` leaves."""
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    checkpoint = tmp_path / "network.safetensors"
    metadata = {"data_manifest": "0123", "metrics": {"val/iou": 0.7}, "seed": 1, "steps": 500}
    save_network(checkpoint, small, metadata)
    return checkpoint


def test_provenance_of_a_run(run):
    assert read_provenance(run) == {
        "data_manifest": "0123",
        "metrics": {"val/iou": 0.7},
        "config": CONFIG,
    }


def test_card_of_a_run(run):
    card = read_card(run)
    amounts = {use.name: use.amount for use in card.data}
    assert amounts == {
        "coco256": "256 images",
        "davis8": "482 images",
        "cutouts": "12 pictures",
        "imagenet_weights": "weights of mobilenetv2_100",
    }
    assert card.training == {"steps": 500, "seed": 1, "samples": 8000}


def test_card_file_adds_to_the_run(run, tmp_path):
    extra = tmp_path / "more.yaml"
    extra.write_text("summary: Good.\nlimits: [None known]\n")
    card = read_card(run, extra)
    assert card.summary == "Good."
    assert len(card.data) == 4
    extra.write_text("sumary: Good.\n")
    with pytest.raises(CardError, match=r"more\.yaml: card\.sumary: unknown"):
        read_card(run, extra)


def test_checkpoint_alone_is_enough(tmp_path, small):
    checkpoint = tmp_path / "network.safetensors"
    save_network(checkpoint, small, {"card": {"summary": "From the file."}, "revision": "abc"})
    assert read_provenance(checkpoint) == {"revision": "abc"}
    card = read_card(checkpoint)
    assert card.summary == "From the file."
    assert card.data == ()


def test_checkpoint_that_carries_its_run_needs_no_folder(tmp_path, small):
    checkpoint = tmp_path / "snapshot.safetensors"
    save_network(checkpoint, small, {"manifest": MANIFEST, "config": CONFIG, "steps": 10})
    assert read_provenance(checkpoint) == {"config": CONFIG}
    card = read_card(checkpoint)
    assert [use.name for use in card.data] == ["coco256", "davis8", "cutouts", "imagenet_weights"]
    assert card.training["samples"] == 160


def test_random_backbone_saw_no_imagenet(run):
    (run.parent / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "pretrained": "none"}))
    assert "imagenet_weights" not in {use.name for use in read_card(run).data}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", "{", r"manifest\.json: not a training run's manifest"),
        ("manifest.json", "{}", r"manifest\.json: not a training run's manifest: KeyError"),
        ("config.yaml", "a: [", r"config\.yaml: not valid YAML"),
        ("config.yaml", "- a", r"config\.yaml: a mapping is wanted"),
    ],
)
def test_damaged_files_are_named(run, file, content, message):
    (run.parent / file).write_text(content)
    with pytest.raises(CardError, match=message):
        read_card(run)


def test_presence_comes_from_the_checkpoint(tmp_path, small):
    fitted, bare = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    spec = PresenceSpec("logistic", ("score", "size_change"), (5.0, -1.0), -2.5, 0.5, 0.12)
    save_network(fitted, small, {"presence": presence_data(spec)})
    save_network(bare, small, {})
    assert read_presence(fitted) == spec
    assert read_presence(bare) == PresenceSpec()


def test_thresholds_of_older_checkpoints_are_kept(tmp_path, small):
    measured = tmp_path / "a.safetensors"
    save_network(measured, small, {"presence": {"found": 0.42, "lost": 0.12, "auroc": 0.97}})
    assert read_presence(measured) == PresenceSpec(found=0.42, lost=0.12)


def test_a_run_that_went_on_from_another_names_the_data_and_teachers_of_both(tmp_path, small):
    teacher = {"kind": "fear_xs", "weight": 1.0}
    first = {
        "manifest": MANIFEST,
        "steps": 500,
        "seed": 3,
        "config": {**CONFIG, "teacher": teacher},
    }
    sets = {"mine": {"sha256": "12", "images": 7, "stills": 7, "tracks": 0, "skipped": 0}}
    metadata = {
        "manifest": {**MANIFEST, "sets": sets, "cutouts": {"files": 0, "sha256": None}},
        "steps": 100,
        "seed": 1,
        "config": {**CONFIG, "start": "first.safetensors"},
        "before": first,
    }
    save_network(tmp_path / "network.safetensors", small, metadata)
    card = read_card(tmp_path / "network.safetensors")
    names = [use.name for use in card.data]
    assert names == ["mine", "coco256", "davis8", "cutouts", "imagenet_weights"]
    assert [row["name"] for row in card.teachers] == ["FEAR-XS"]
    assert card.training["started from"] == "steps 500, seed 3, samples 8000"
    assert card.training["steps"] == 100


def test_a_run_without_a_teacher_names_none(run):
    assert read_card(run).teachers == ()
