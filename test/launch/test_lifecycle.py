"""Transitions of a tracker_node in a process of its own: what fails says why, and what else answers."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def process(start: Any, fake_tracker: list[str]) -> Any:
    """Started with a model that is not there and a parameter that cannot be."""
    return start([*fake_tracker, "--ros-args", "-p", "model:=no_such_model", "-p", "window:=7.0"])


def test_it_starts_unconfigured_and_says_so(process: Any, remote: Any) -> None:
    assert remote.state() == "unconfigured"
    assert remote.wait_status(state="unconfigured")["message"] == "unconfigured"


def test_a_parameter_that_cannot_be_fails_configure(process: Any, remote: Any) -> None:
    assert not remote.change("configure")
    status = remote.wait_status(message="configure failed: window must be 0 to 1, or -1, got 7")
    assert status["state"] == "unconfigured"
    assert remote.state() == "unconfigured"
    remote.wait(lambda: "window must be 0 to 1" in process.output)
    assert remote.set(window=0.3) == (True, "")


def test_a_missing_model_fails_configure(process: Any, remote: Any) -> None:
    assert not remote.change("configure")
    remote.wait_status(message="configure failed: no model bundle called 'no_such_model'")
    assert remote.state() == "unconfigured"
    assert not remote.change("activate")  # not from here
    assert remote.state() == "unconfigured"


Spoil = Callable[[Path], Any]


def spoil_text(old: str, new: str) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "bundle.yaml"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "search.onnx").unlink(), ["search.onnx"]),
        (
            lambda folder: (folder / "template.onnx").write_bytes(b"x" * 10),
            ["template.onnx"],
        ),
        (spoil_text("schema: 1", "schema: 2"), ["bundle.yaml", "schema"]),
        (spoil_text("tracker:", "colour_depth: 3\ntracker:"), ["bundle.yaml", "colour_depth"]),
    ],
    ids=["missing file", "damaged file", "newer schema", "unknown field"],
)
def test_a_spoilt_bundle_fails_configure(
    process: Any, remote: Any, colour_bundle: Path, tmp_path: Path, spoil: Spoil, words: list[str]
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(colour_bundle, folder)
    spoil(folder)
    assert remote.set(model=str(folder)) == (True, "")
    assert not remote.change("configure")
    status = remote.wait_status(message=str(folder))
    assert all(word in status["message"] for word in words)
    assert "Traceback" not in process.output


def test_a_real_bundle_configures(process: Any, remote: Any, colour_bundle: Path) -> None:
    assert remote.set(model=str(colour_bundle)) == (True, "")
    assert remote.change("configure"), process.output
    status = remote.wait_status(state="inactive", model="colour", backend="ONNX Runtime")
    assert (status["message"], status["calibration"]) == ("inactive", "uncalibrated")
    remote.wait(lambda: "ready: colour on ONNX Runtime" in process.output)
    assert remote.change("cleanup")
    remote.wait_status(state="unconfigured", model="")


def test_other_services_answer_while_it_configures(process: Any, remote: Any) -> None:
    """The model called hang takes three seconds to open."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    assert remote.set(model="hang") == (True, "")
    client = remote.node.create_client(ChangeState, "tracker_node/change_state")
    assert client.wait_for_service(10)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    began = time.monotonic()
    first = client.call_async(request)
    remote.wait_status(state="configuring")
    assert remote.state(timeout=2.0) == "configuring"
    successful, _ = remote.set(diagnostics_period=0.2)
    assert successful
    assert not remote.change("configure", timeout=2.0)  # one at a time
    assert time.monotonic() - began < 2.9 and not first.done()
    remote.wait(first.done)
    assert first.result().success
    assert remote.state() == "inactive"


def test_a_selection_before_activate_is_refused(process: Any, remote: Any) -> None:
    from siam_tracker_ros.geometry import Box

    remote.wait(lambda: remote.targets.get_subscription_count() == 1)
    remote.select(Box(50.0, 50.0, 20.0, 20.0))
    remote.wait_status(selection_verdict="refused: the node is not active")


def test_activate_is_instant_and_deactivate_forgets_the_target(process: Any, remote: Any) -> None:
    import numpy as np

    from siam_tracker_ros.geometry import Box

    for name in ("first", "second"):
        began = time.monotonic()
        assert remote.change("activate")
        assert time.monotonic() - began < 1.0
        remote.wait_status(state="idle", id="")
        remote.wait(lambda: remote.images.get_subscription_count() == 1)
        time.sleep(0.5)  # it takes over the reliability of the publisher it found
        remote.begin(np.full((100, 120, 3), 128, np.uint8), Box(50.0, 50.0, 20.0, 20.0), name)
        assert remote.change("deactivate")
        remote.wait_status(state="inactive", id="", score="")
        remote.wait(lambda: remote.images.get_subscription_count() == 0)
    assert [message.id for message in remote.detections] == ["first", "second"]
    assert not remote.pause(True).success


def test_cleanup_and_again(process: Any, remote: Any) -> None:
    assert remote.change("cleanup")
    assert remote.set(model="fake") == (True, "")
    assert remote.change("configure") and remote.change("activate")
    assert remote.state() == "active"


def test_shutdown_ends_the_life_but_not_the_process(process: Any, remote: Any) -> None:
    assert remote.change("active_shutdown")
    assert remote.state() == "finalized"
    remote.wait_status(state="finalized")
    assert process.stop(signal.SIGTERM) == 0
    assert "Traceback" not in process.output


def test_a_hail_of_interrupts_ends_it_cleanly(
    start: Any, remote: Any, fake_tracker: list[str]
) -> None:
    """A terminal and launch both interrupt a process; the second one must not break its clean-up."""
    process = start(fake_tracker)
    assert remote.state(60.0) == "unconfigured"
    while process.process.poll() is None:
        process.process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    assert process.wait() == 0, process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_while_the_network_is_busy(
    start: Any, fake_tracker: list[str], remote: Any, how: int
) -> None:
    import numpy as np

    from siam_tracker_ros.geometry import Box

    remote.statuses.clear()
    process = start([*fake_tracker, "--ros-args", "-p", "model:=slow"])
    assert remote.change("configure") and remote.change("activate")
    remote.wait(lambda: remote.images.get_subscription_count() == 1)
    time.sleep(0.5)
    pixels = np.full((100, 120, 3), 128, np.uint8)
    remote.begin(pixels, Box(50.0, 50.0, 20.0, 20.0), f"busy {how}")
    for _ in range(5):
        remote.image(pixels)
    assert process.stop(how) == 0
    assert "Traceback" not in process.output and "context is invalid" not in process.output
