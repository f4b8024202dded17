"""From a network to a bundle on disk, through the function and through the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from siam_tracker_ros.bundle import BundleError, PresenceSpec, load_bundle
from siam_tracker_ros.cli.main import app
from siam_tracker_ros.deployment.export import export_bundle
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.networks.checkpoint import save_network

CONFIGS = Path(__file__).parents[2] / "config" / "training"


def test_bundle_holds_all_a_robot_and_a_reader_need(small_bundle, small):
    names = {file.name for file in small_bundle.path.iterdir()}
    assert names == {
        "bundle.yaml",
        "template.onnx",
        "search.onnx",
        "template.fp16.onnx",
        "search.fp16.onnx",
        "README.md",
        "LICENSE",
        "parity.json",
    }
    loaded = load_bundle(small_bundle.path)
    assert loaded == small_bundle
    assert loaded.crop == small.config.crop
    assert loaded.tuning == small.default_tuning
    assert loaded.graph_tuning == {"window", "penalty", "arm"}
    assert loaded.provenance["config"]["matching"]["kernel"] == 5
    parity = json.loads((small_bundle.path / "parity.json").read_text())
    assert parity["onnxruntime"]["outputs"][0]["frames"] == 30
    assert "A network of the tests." in (small_bundle.path / "README.md").read_text()


def test_default_tuning_is_the_recipes(small):
    rates = {"size_rate": 0.3, "size_bias": 0.5}
    assert small.default_tuning == {"window": 0.2, "penalty": 0.1, "arm": 1.0, **rates}


def test_tuning_presence_and_provenance_arrive(small, tmp_path):
    spec = PresenceSpec("logistic", ("score",), (4.0,), -2.0, 0.7, 0.2)
    bundle, _ = export_bundle(
        small,
        tmp_path / "other",
        name="other",
        tuning={"arm": 0.0, "window": 0.3},
        presence=spec,
        provenance={"data_manifest": "ab12", "metrics": {"auc": 0.5}},
        clips=[synthetic_sequence(320, 240, 3)],
    )
    rates = {"size_rate": 0.3, "size_bias": 0.5}
    assert bundle.tuning == {"window": 0.3, "penalty": 0.1, "arm": 0.0, **rates}
    assert bundle.presence == spec
    assert bundle.provenance["data_manifest"] == "ab12"
    session = open_session(bundle, "onnxruntime", intra_op_threads=1)
    session.warm_up()
    session.close()


def test_unknown_tuning_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match=r"tuning\.windw: unknown; there are window, penalty"):
        export_bundle(small, tmp_path / "a", name="a", tuning={"windw": 0.1})


def test_failed_export_leaves_what_was_there(small, bundle_folder):
    before = {f.name: f.read_bytes() for f in bundle_folder.iterdir()}
    with pytest.raises(BundleError):
        export_bundle(small, bundle_folder, name="not a name")
    assert {f.name: f.read_bytes() for f in bundle_folder.iterdir()} == before


# --- the command ------------------------------------------------------------------------------------------------------


def siam_tracker(*words: object):
    return CliRunner().invoke(app, ["export", *map(str, words)])


@pytest.fixture
def config(tmp_path, small_config):
    file = tmp_path / "small.yaml"
    file.write_text(
        yaml.safe_dump({"network": _plain(small_config.to_dict()), "pretrained": "none"})
    )
    return file


def _plain(value):
    return json.loads(json.dumps(value))


def test_command_exports_an_untrained_network(config, tmp_path):
    out = tmp_path / "models"
    result = siam_tracker("--untrained", "--config", config, "--name", "try", "--out", out)
    assert result.exit_code == 0, result.output
    assert "median IoU" in result.output
    bundle = load_bundle(out / "try")
    assert bundle.name == "try"
    text = (out / "try" / "README.md").read_text()
    assert "An untrained network: it runs, and does not track." in text
    assert "imagenet" not in text
    assert str(tmp_path) not in (out / "try" / "bundle.yaml").read_text()


def test_command_exports_a_checkpoint(following, tmp_path):
    checkpoint = tmp_path / "network.safetensors"
    save_network(checkpoint, following, {"data_manifest": "ab12"})
    card = tmp_path / "card.yaml"
    card.write_text("summary: From a file.\n")
    result = siam_tracker(
        *("--checkpoint", checkpoint, "--name", "mine", "--out", tmp_path / "models"),
        *("--tuning", "window=0.25", "--card", card),
    )
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "models" / "mine")
    assert bundle.tuning["window"] == 0.25
    assert bundle.provenance["data_manifest"] == "ab12"
    assert bundle.provenance["revision"].startswith("0.")
    assert "From a file." in (bundle.path / "README.md").read_text()


def test_command_fails_where_the_graphs_do_something_else(config, tmp_path, monkeypatch):
    from siam_tracker_ros.deployment import parity

    monkeypatch.setattr(parity, "OUTPUT_LIMIT", -1.0)
    words = ["--untrained", "--config", config, "--name", "try", "--out", tmp_path / "models"]
    result = siam_tracker(*words)
    assert result.exit_code == 1
    assert "parity: synthetic_640x360_120_0: result.box differs by" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --checkpoint, or --untrained with --config"),
        (["--untrained"], "--untrained needs --config"),
        (["--checkpoint", "gone.safetensors"], "gone.safetensors: not readable as safetensors"),
        (["--untrained", "--config", "gone.yaml"], "gone.yaml: cannot be read"),
        (["--untrained", "--tuning", "window"], "--tuning window: name=number is wanted"),
        (["--untrained", "--int8"], "--int8 and --calibration go together"),
        (
            [
                "--untrained",
                "--config",
                str(CONFIGS / "siam_stm_mobilenetv2.yaml"),
                "--set",
                "pretrained=none",
                "--tuning",
                "wind=1",
            ],
            "tuning.wind: unknown; there are window, penalty, arm, size_rate",
        ),
    ],
)
def test_command_says_what_is_wrong_in_one_line(words, message, tmp_path):
    result = siam_tracker("--name", "a", "--out", tmp_path, *words)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_clip_that_is_not_there(config, tmp_path):
    words = ["--untrained", "--config", config, "--clip", tmp_path / "gone.mp4"]
    result = siam_tracker("--name", "a", "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert "gone.mp4" in result.stderr
