"""A tracker_node with TensorRT (stand-ins) in a process of its own: builds, swaps, and what ends them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siam_tracker_ros.geometry import Box

pytestmark = pytest.mark.ros

NODE = [sys.executable, str(Path(__file__).resolve().parent / "engine_node.py")]
ENDLESS = {"steps": 10_000, "step_seconds": 0.2}
BOX = Box(100.0, 80.0, 40.0, 30.0)
THERE = Box(115.0, 86.0, 40.0, 30.0)


@pytest.fixture(scope="module")
def behave(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Function (**Behaviour's fields) -> the file that says so to builds."""
    path = tmp_path_factory.mktemp("behaviour") / "behaviour.json"

    def write(**behaviour: Any) -> Path:
        path.write_text(json.dumps(behaviour), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "engines"


@pytest.fixture(scope="module")
def begin(start: Any, behave: Any, colour_bundle: Path, cache: Path) -> Callable[..., Any]:
    """Function (*parameters) -> the node's process."""

    def start_node(*parameters: str) -> Any:
        given = [f"model:={colour_bundle}", f"cache_dir:={cache}", *parameters]
        arguments = [word for text in given for word in ("-p", text)]
        return start([*NODE, "--ros-args", *arguments], FAKE_BEHAVIOUR_FILE=str(behave()))

    return start_node


@pytest.fixture(scope="module")
def process(begin: Any) -> Any:
    return begin("backend:=tensorrt")


def builds(process: Any) -> list[int]:
    """The processes that the node started and that are still there, zombies too."""
    tasks = Path(f"/proc/{process.process.pid}/task")
    words = [(task / "children").read_text().split() for task in tasks.iterdir()]
    return [int(word) for listed in words for word in listed]


def picture(box: Box) -> np.ndarray:
    pixels = np.full((200, 320, 3), 90, np.uint8)
    x1, y1, x2, y2 = (round(edge + 0.5) for edge in box.edges)
    pixels[y1:y2, x1:x2] = (30, 120, 230)
    return pixels


def found(remote: Any, box: Box, id: str) -> None:
    """The thing is shown at a place, and found there."""
    message = remote.detection_of(remote.image(picture(box)), id)
    assert len(message.results) == 1
    at = message.bbox
    assert Box(at.center.position.x, at.center.position.y, at.size_x, at.size_y).iou(box) > 0.8


def eventually(remote: Any, **wanted: str) -> dict[str, str]:
    """Wait until the newest ~/status holds these texts: builds start processes of their own."""

    def matches() -> dict[str, str] | None:
        status = remote.status()
        return status if all(text in status.get(key, "") for key, text in wanted.items()) else None

    return remote.wait(matches, f"a status with {wanted}", 90.0)


@pytest.fixture
def fresh(process: Any, remote: Any) -> None:
    """Unconfigured, whatever a test before this one left."""
    if remote.state() != "unconfigured":
        remote.change("deactivate")
        assert remote.change("cleanup")


def configure(remote: Any) -> Any:
    """Ask for configure without waiting; the future."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    client = remote.node.create_client(ChangeState, "tracker_node/change_state")
    assert client.wait_for_service(30)
    wanted = Transition(id=Transition.TRANSITION_CONFIGURE)
    return client.call_async(ChangeState.Request(transition=wanted))


@pytest.mark.usefixtures("fresh")
def test_engines_are_built_beside_tracking_and_taken_over(
    process: Any, remote: Any, behave: Any
) -> None:
    behave(steps=5, step_seconds=0.2)
    assert remote.set(force_rebuild=True) == (True, "")
    assert remote.change("configure")
    (build,) = remote.wait(lambda: builds(process))
    os.kill(build, signal.SIGSTOP)  # it shall not be there before the target is
    try:
        assert remote.change("activate")
        remote.wait(lambda: remote.images.get_subscription_count() == 1)
        remote.wait_status(state="idle", backend="ONNX Runtime", engine_build="begins")
        time.sleep(0.5)  # it takes over the reliability of the publisher it found
        remote.begin(picture(BOX), BOX, "first")
    finally:
        os.kill(build, signal.SIGCONT)
    eventually(remote, engine_build="ready: used from the next selection")
    texts = {p.value for s in remote.statuses for p in s.values if p.key == "engine_build"}
    assert any(" fp32 " in text and " %: " in text for text in texts), texts
    found(remote, THERE, "first")
    assert remote.status()["backend"].startswith("ONNX Runtime")
    remote.begin(picture(BOX), BOX, "second")
    remote.wait_status(backend="TensorRT 10.3 fp32 on Fake GPU 9000", state="tracking")
    found(remote, THERE, "second")
    assert remote.status()["engine_build"] == ""
    values = {p.key: p.value for p in remote.diagnostics[-1].status[0].values}
    assert {"engine_build", "backend_problem"} <= set(values)
    assert builds(process) == []


@pytest.mark.usefixtures("fresh")
def test_engines_from_the_cache_run_at_once(process: Any, remote: Any) -> None:
    remote.wait_status(state="unconfigured", backend="")
    assert remote.set(force_rebuild=False) == (True, "")
    assert remote.change("configure")
    remote.wait_status(state="inactive", backend="TensorRT", engine_build="")
    why = "on Fake GPU 9000, engines from the cache (backend tensorrt: as asked)"
    remote.wait(lambda: why in process.output)
    assert remote.change("cleanup")


@pytest.mark.usefixtures("fresh")
def test_a_build_that_fails_fails_configure_with_the_reason(
    process: Any, remote: Any, behave: Any
) -> None:
    behave(build="fail")
    assert remote.set(force_rebuild=True, build_in_background=False) == (True, "")
    assert not remote.change("configure", timeout=90.0)
    remote.wait_status(message="configure failed", state="unconfigured", engine_build="")
    assert "Could not find any implementation for node /conv" in remote.status()["message"]


@pytest.mark.usefixtures("fresh")
def test_a_build_that_fails_is_stood_in_for_and_said(
    process: Any, remote: Any, behave: Any
) -> None:
    behave(build="out of memory")
    wanted = {"allow_fallback": "always", "build_in_background": True, "force_rebuild": True}
    assert remote.set(**wanted) == (True, "")
    assert remote.change("configure")
    status = eventually(remote, backend_problem="out of GPU memory while building")
    assert (status["state"], status["engine_build"]) == ("inactive", "failed")
    assert status["message"].startswith("inactive, on ONNX Runtime")
    assert remote.statuses[-1].level in (1, b"\x01")
    assert remote.change("cleanup")
    assert remote.set(allow_fallback="auto") == (True, "")


@pytest.mark.usefixtures("fresh")
def test_cleanup_ends_a_build_beside_tracking(process: Any, remote: Any, behave: Any) -> None:
    behave(**ENDLESS)
    assert remote.set(build_in_background=True, force_rebuild=True) == (True, "")
    assert remote.change("configure")
    eventually(remote, state="inactive", engine_build="template fp32")
    assert remote.change("cleanup")
    assert builds(process) == []
    remote.wait_status(state="unconfigured", engine_build="")


@pytest.mark.usefixtures("fresh")
def test_cleanup_ends_a_configure_that_waits_for_engines(
    process: Any, remote: Any, behave: Any
) -> None:
    behave(**ENDLESS)
    assert remote.set(build_in_background=False, force_rebuild=True) == (True, "")
    answer = configure(remote)
    eventually(remote, state="configuring", engine_build="template fp32")
    assert remote.state() == "configuring"
    assert remote.set(diagnostics_period=0.5) == (True, "")
    assert len(builds(process)) == 1
    assert remote.change("cleanup")
    remote.wait(answer.done)
    assert not answer.result().success
    assert remote.state() == "unconfigured" and builds(process) == []
    # What was in the cache is still there, and good.
    assert remote.set(force_rebuild=False) == (True, "")
    assert remote.change("configure")
    remote.wait_status(state="inactive", backend="TensorRT")
    assert remote.change("cleanup")


@pytest.mark.usefixtures("fresh")
def test_shutdown_ends_a_configure_that_waits_for_engines(process: Any, remote: Any) -> None:
    assert remote.set(build_in_background=False, force_rebuild=True) == (True, "")
    answer = configure(remote)
    eventually(remote, state="configuring", engine_build="template fp32")
    assert remote.change("inactive_shutdown")
    remote.wait(answer.done)
    assert remote.state() == "finalized" and builds(process) == []
    assert process.stop() == 0
    assert "Traceback" not in process.output


def test_an_interrupt_ends_a_configure_that_waits_for_engines(
    begin: Any, remote: Any, behave: Any, cache: Path
) -> None:
    process = begin("force_rebuild:=true", "build_in_background:=false")
    behave(**ENDLESS)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in cache.glob("*.engine"))
    remote.statuses.clear()
    configure(remote)
    eventually(remote, state="configuring", engine_build="template fp32")
    (build,) = builds(process)
    assert process.stop(signal.SIGINT) == 0
    assert not Path(f"/proc/{build}").exists()
    assert "Traceback" not in process.output
    assert sorted((p.name, p.stat().st_mtime_ns) for p in cache.glob("*.engine")) == before
