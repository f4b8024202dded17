"""docs/install.md quotes what the code says, and docs/camera.md what the launch file does."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.inference import BackendError, open_session
from siam_tracker_ros.inference import opening as opening_module

ROOT = Path(__file__).resolve().parents[2]
INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
HALTED = re.compile(r"\(import of (\w+) halted; None in sys\.modules\)")


def as_quoted(message: str) -> str:
    """A module that a test takes away is missed in other words than one that is not installed."""
    return HALTED.sub(r"(No module named '\1')", message)


@pytest.fixture(scope="module")
def bundle() -> Any:
    return load_bundle(ROOT / "models" / "siam_stm_mobilenetv2")


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from siam_tracker_ros.inference.cuda import CudaError

    def find() -> None:
        raise CudaError("no NVIDIA driver on this machine (libcuda.so.1 is not there)")

    monkeypatch.setattr(opening_module, "find_gpu", find)


def test_without_onnx_runtime(
    bundle: Any, no_driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "siam_tracker_ros.inference.onnx_session", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError) as error:
        open_session(bundle)
    assert f"`configure failed: {as_quoted(str(error.value))}`" in INSTALL


def test_without_a_gpu(bundle: Any, no_driver: None) -> None:
    lines: list[str] = []
    open_session(bundle, intra_op_threads=2, log=lines.append).close()
    words = re.sub(r"Runtime \d+\.\d+", "Runtime 1.31", lines[-1])
    assert f"`... {words.removeprefix('siam_stm_mobilenetv2 ')}`" in INSTALL
    with pytest.raises(BackendError) as error:
        open_session(bundle, "tensorrt")
    assert f"`{error.value}`" in INSTALL


def test_with_a_gpu_but_no_tensorrt_or_an_old_one(
    bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening_module, "find_gpu", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    lines: list[str] = []
    open_session(bundle, log=lines.append).close()
    assert f"`... {as_quoted(lines[-1]).partition(' threads ')[2]}`" in INSTALL
    old = SimpleNamespace(__version__="8.5.2.2", IExecutionContext=object)
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendError, match=re.escape("TensorRT 8.5.2.2 is too old: 8.6 is needed")):
        open_session(bundle, "tensorrt")
    assert "`TensorRT 8.5.2.2 is too old: 8.6 is needed`" in INSTALL


@pytest.mark.ros
def test_without_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from siam_tracker_ros.nodes.launching import need_package

    monkeypatch.setitem(os.environ, "ROS_DISTRO", "humble")
    monkeypatch.setitem(os.environ, "AMENT_PREFIX_PATH", str(ROOT))
    with pytest.raises(RuntimeError) as error:
        need_package("usb_cam", "camera:=usb_cam")
    assert f"`{error.value}`" in INSTALL


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_file_and_launch_argument_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", text) if link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "launch").glob("*.py")}
    shared = (ROOT / "siam_tracker_ros" / "nodes" / "launching.py").read_text(encoding="utf-8")
    for command in re.findall(r"siam_tracker_ros (\w+\.launch\.py(?:[^\n`]|\\\n)*)", text):
        file, *words = command.replace("\\\n", " ").split("#")[0].split()
        assert file in files, f"{page.name}: {file}"
        for name in (word.split(":=")[0] for word in words if ":=" in word):
            assert f'"{name}": (' in files[file] + shared, f"{page.name}: {file} {name}:="
