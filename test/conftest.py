"""What every test may rely on: the data folder, a ROS graph of its own, reasons for skips."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TEST_ROOT = Path(__file__).resolve().parent

# The sources beside these tests are what is tested, whatever is installed.
sys.path.insert(0, str(TEST_ROOT.parent))

# Folders of tests that cannot even be imported without these: skipped as a whole, with the reason.
NEEDED_BY_FOLDER = {
    "networks": ("torch", "timm"),
    "training": ("torch", "lightning"),
    "deployment": ("torch", "onnx"),
    "evaluation": ("matplotlib",),
    "cli": ("matplotlib", "rich"),
    "inference": ("onnxruntime",),
    "gpu": ("onnx", "onnxruntime"),
    "nodes": ("rclpy",),
    "launch": ("rclpy",),
}

# Their conftest.py imports torch: left out as a whole without it, and the header says so.
OF_TORCH = ("deployment", "networks")

# A loaded machine is slow, and a slow example is no wrong one.
try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass
else:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    settings.register_profile("house", deadline=None, suppress_health_check=slow)
    settings.load_profile("house")


@cache
def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@cache
def has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


# --- a ROS graph of its own -----------------------------------------------------------------------

# The sockets that mark domains as taken; they close with this process.
_taken_domains: list[socket.socket] = []


def take_domain_id() -> int:
    """A ROS domain that no other test process here uses; each holds one local port."""
    candidates = list(range(1, 102))
    random.SystemRandom().shuffle(candidates)
    for domain in candidates:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            holder.bind(("127.0.0.1", 31000 + domain))
        except OSError:
            holder.close()
            continue
        _taken_domains.append(holder)
        return domain
    raise RuntimeError("all 101 ROS domains are in use by other test processes of this machine")


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts the tests in the background has them ignore interrupts, and what they start too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["ROS_DOMAIN_ID"] = str(take_domain_id())
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def pytest_report_header(config: pytest.Config) -> list[str]:
    distro = os.environ.get("ROS_DISTRO", "unknown") if is_installed("rclpy") else "none"
    header = [f"ROS 2: {distro}, domain {os.environ['ROS_DOMAIN_ID']}"]
    return (
        header
        if is_installed("torch")
        else [*header, f"left out without torch: {', '.join(OF_TORCH)}"]
    )


# --- what is missing ------------------------------------------------------------------------------


class _ModuleThatNeeds(pytest.Module):
    """A test file that is reported as skipped instead of failing at its first import."""

    missing: str

    def collect(self) -> Any:
        pytest.skip(f"needs {self.missing}, which is not installed", allow_module_level=True)


def make_module(file: Path, parent: Any, **location: Any) -> pytest.Module | None:
    """The test module for a file; None leaves it to launch_testing, which runs launch tests.

    launch_testing imports every test file, in a way of its own, to see whether it is a launch test:
    it then fails where two folders have files of the same name. It gets to see launch tests alone.
    """
    inside = file.relative_to(TEST_ROOT).parts if TEST_ROOT in file.parents else ("",)
    missing = [name for name in NEEDED_BY_FOLDER.get(inside[0], ()) if not is_installed(name)]
    if missing:
        module = _ModuleThatNeeds.from_parent(parent, **location)
        module.missing = " and ".join(missing)
        return module
    if "def generate_test_description" in file.read_text(encoding="utf-8"):
        return None
    return pytest.Module.from_parent(parent, **location)


def left_out(folder: Path) -> bool | None:
    """Whether this folder's conftest.py could not even be imported."""
    return (
        True
        if folder.parent == TEST_ROOT and folder.name in OF_TORCH and not is_installed("torch")
        else None
    )


if int(pytest.__version__.split(".")[0]) >= 7:

    def pytest_ignore_collect(collection_path: Path) -> bool | None:
        return left_out(collection_path)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
        return make_module(module_path, parent, path=module_path)

else:  # Ubuntu 22.04's pytest 6

    def pytest_ignore_collect(path: Any) -> bool | None:
        return left_out(Path(path))

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(path: Any, parent: Any) -> pytest.Module | None:
        return make_module(Path(path), parent, fspath=path)


def why_not(marker: str) -> str | None:
    """The reason why tests with this marker cannot run here, or None."""
    if marker == "ros" and not is_installed("rclpy"):
        return "needs ROS 2: rclpy is not on the path (run it through scripts/with_ros.sh)"
    if marker in ("gpu", "tensorrt") and not has_gpu():
        return "needs an NVIDIA GPU"
    if marker == "tensorrt" and not is_installed("tensorrt"):
        return "needs TensorRT"
    if marker == "data" and find_data()[0] is None:
        return find_data()[1]
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    again = config.pluginmanager.hasplugin("rerunfailures")
    for item in items:
        # launch_testing's items do not take over their module's marks.
        if any(kind.__name__ == "LaunchTestItem" for kind in type(item).__mro__):
            item.add_marker(pytest.mark.ros)
        for marker in ("ros", "gpu", "tensorrt", "data"):
            if item.get_closest_marker(marker) and (reason := why_not(marker)):
                item.add_marker(pytest.mark.skip(reason=reason))
        # Real processes over a real middleware on a machine with other work: discovery and scheduling are
        # not ours. A test that fails twice fails; one that fails once is named in the summary (RERUN).
        if again and item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.flaky(reruns=1))


# --- data -----------------------------------------------------------------------------------------

DATA_VARIABLE = "SIAM_TRACKER_DATA"


@cache
def find_data() -> tuple[Path | None, str]:
    """The data folder, and the reason why there is none."""
    # Imported here: only one room knows where the data is, and few tests need it.
    from siam_tracker_ros.evaluation.data_root import data_root as find

    try:
        return find(), f"needs the data folder: set {DATA_VARIABLE} to it"
    except FileNotFoundError as error:
        return None, f"needs the data folder: {error}"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The data folder; the test is skipped where there is none."""
    folder, reason = find_data()
    if folder is None:
        pytest.skip(reason)
    return folder


def skips_for_data(reports: list[Any]) -> list[str]:
    return [
        f"{report.nodeid}: {report.longrepr[2]}"
        for report in reports
        if isinstance(report.longrepr, tuple) and DATA_VARIABLE in report.longrepr[2]
    ]


@pytest.hookimpl(hookwrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """With SIAM_TRACKER_CI=1, a test skipped for want of data that is here is a failure."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SIAM_TRACKER_CI") != "1" or terminal is None:
        return
    skipped = skips_for_data(terminal.stats.get("skipped", []))
    if skipped and find_data()[0] is not None:
        terminal.write_line("")
        terminal.write_line(
            "FAILED: the data is here, but tests were skipped for want of it:", red=True
        )
        for line in skipped:
            terminal.write_line(f"  {line}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
