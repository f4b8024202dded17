"""Why images do not arrive: said with what helps, and only when it is so."""

from __future__ import annotations

from typing import Any

import pytest

from siam_tracker_ros.nodes.statistics import Statistics
from siam_tracker_ros.nodes.transport import (
    Offer,
    Reading,
    shared_memory_bytes,
    transport_problem,
    transport_remedy,
)

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
DRIVER = Offer("/driver", RAW, reliable=False)


class Scene:
    def __init__(self) -> None:
        self.now = 100.0
        self.statistics = Statistics(lambda: self.now)

    def images(self, count: int, lost: int = 0) -> None:
        for i in range(count):
            self.now += 1 / 30
            self.statistics.image_received(None, 2_764_800)
            if i < lost:
                self.statistics.lost_in_transport(1)

    def problem(self, *offers: Offer, **changes: Any) -> str:
        values = {
            "topic": "/image",
            "type": RAW,
            "reliability": "auto",
            "offers": offers,
            "compressed_offered": False,
            "for_seconds": 60.0,
            **changes,
        }
        return transport_problem(Reading(**values), self.statistics.figures(), "do this")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_is_said_while_images_arrive(scene: Scene) -> None:
    scene.images(100, lost=4)
    assert scene.problem(DRIVER) == ""


def test_many_lost_images(scene: Scene) -> None:
    scene.images(60, lost=20)
    text = "25% of the images are lost on the way, each 2.8 MB: do this"
    assert scene.problem(DRIVER) == text
    scene.images(300)
    assert scene.problem(DRIVER) == ""  # over


def test_many_overwritten_images(scene: Scene) -> None:
    for sequence in range(0, 60, 2):
        scene.now += 1 / 15
        scene.statistics.image_received(sequence, 2_764_800)
    text = scene.problem(DRIVER)
    assert text.startswith("49% of the images, each 2.8 MB, are overwritten in a queue")
    assert text.endswith("the machine is too busy, or do this")


def test_silence_is_explained(scene: Scene) -> None:
    assert scene.problem(for_seconds=2.9) == ""
    assert scene.problem() == "no images: nobody publishes /image"
    assert "set image_transport to compressed" in scene.problem(compressed_offered=True)
    other = Offer("/driver", COMPRESSED, reliable=True)
    assert scene.problem(other) == (
        f"no images: /driver publishes {COMPRESSED} on /image, and {RAW} is wanted: set "
        "image_transport to compressed"
    )
    assert "set image_reliability to auto" in scene.problem(DRIVER, reliability="reliable")
    assert scene.problem(DRIVER) == (
        "no images, though /driver has a publisher on /image; if it sends any, do this"
    )


def test_a_camera_that_ended_and_came_back(scene: Scene) -> None:
    scene.images(10)
    scene.now += 3.1
    assert scene.problem() == "no images: nobody publishes /image any more"
    scene.images(1)
    assert scene.problem(DRIVER) == ""


def test_remedies() -> None:
    fast = transport_remedy("rmw_fastrtps_cpp", "/p/fastdds.xml", {}, 10**9)
    assert "start this node and the camera's driver with FASTRTPS_DEFAULT_PROFILES_FILE=/p/" in fast
    assert "shm" not in fast
    have = {"FASTRTPS_DEFAULT_PROFILES_FILE": "x"}
    small = transport_remedy("rmw_fastrtps_cpp", "/p/fastdds.xml", have, 64 << 20)
    assert "start the camera's driver with" in small and "--shm-size" in small
    assert "net.core.rmem_max" in transport_remedy("rmw_cyclonedds_cpp", "/p", {}, None)
    memory = shared_memory_bytes("/")
    assert memory is not None and memory > 0
    assert shared_memory_bytes("/no/such/folder") is None
