"""``siam-tracker build`` over stand-ins for driver and TensorRT, and where there is no GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from siam_tracker_ros.cli.main import app
from siam_tracker_ros.inference import building, cuda

HERE = Path(__file__).resolve().parent
FAKES = HERE.parent / "inference"
runner = CliRunner()


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Function (**fields of the stand-in's behaviour): this machine has a GPU and TensorRT 10.3."""
    monkeypatch.syspath_prepend(str(FAKES))
    from fake_cuda import FakeCuda
    from fake_tensorrt import make_tensorrt

    driver = FakeCuda()
    monkeypatch.setattr(cuda, "load_library", lambda: driver)
    monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt("10.3.0", driver))
    monkeypatch.setattr(building, "MODULE", "fake_build_child")
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def behave(**behaviour):
        monkeypatch.setenv("FAKE_BEHAVIOUR", json.dumps(behaviour))

    behave()
    return behave


@pytest.fixture
def build(colour_bundle):
    return lambda *options: runner.invoke(app, ["build", "--model", str(colour_bundle), *options])


def test_engines_are_built_and_then_found(gpu, build, tmp_path):
    result = build("--precision", "fp32")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "cache" / "siam_tracker_ros" / "engines"
    assert f"TensorRT 10.3.0, Fake GPU 9000: {folder}" in result.output
    assert "building the fp32 engine of search (search.onnx): there is none yet" in result.output
    assert "building the engine of search: 100 %" in result.output or "Built in" in result.output
    assert "s: template, search" in result.output
    assert len(list(folder.glob("*.engine"))) == 3
    again = build("--precision", "fp32")
    assert again.exit_code == 0 and "The engines were there already" in again.output
    forced = build("--precision", "fp32", "--force")
    assert "Built in" in forced.output and "as asked" in forced.output


def test_another_folder(gpu, build, tmp_path):
    result = build("--cache-dir", str(tmp_path / "mine"))
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "mine").glob("*.engine"))) == 3


@pytest.mark.parametrize(
    ("behaviour", "what"),
    [
        ({"build": "fail"}, "cannot build it: Could not find any implementation for node /conv"),
        ({"build": "killed"}, "the build was killed"),
        ({"parse": [["RoiAlign", "/roi", "No importer"]]}, "operator RoiAlign of node /roi"),
    ],
)
def test_what_goes_wrong_is_one_line(gpu, build, behaviour, what):
    gpu(**behaviour)
    result = build()
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("siam-tracker build: ") and what in last


def test_a_precision_that_is_not_there(gpu, build):
    result = build("--precision", "fp16")
    assert result.exit_code == 2 and "has no fp16 graphs (it has: fp32)" in result.output
    result = build("--precision", "half")
    assert result.exit_code == 2 and "got 'half'" in result.output


def test_a_folder_that_others_can_write_is_refused(gpu, build, tmp_path):
    wide = tmp_path / "wide"
    wide.mkdir()
    wide.chmod(0o777)
    result = build("--cache-dir", str(wide))
    assert result.exit_code == 2 and "everybody can write to it" in result.output


def test_without_a_gpu_it_says_what_is_missing(build, monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARIES", ("libno-such-driver.so.1",))
    cuda.load_library.cache_clear()
    result = build()
    cuda.load_library.cache_clear()
    assert result.exit_code == 2
    assert "engines are built on the GPU that runs them: no NVIDIA driver" in result.output


def test_a_model_that_is_not_there():
    result = runner.invoke(app, ["build", "--model", "no_such_model"])
    assert result.exit_code == 2 and "no model bundle called 'no_such_model'" in result.output
