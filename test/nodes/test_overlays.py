"""~/annotations and ~/markers: where the box is, in which colour, and when it goes."""

from __future__ import annotations

import numpy as np
import pytest

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.camera_rays import CameraRays

pytestmark = pytest.mark.ros

BOX = Box(100.0, 80.0, 30.0, 20.0)
MATRIX = np.array([[300.0, 0.0, 160.0], [0.0, 310.0, 120.0], [0.0, 0.0, 1.0]])


def header() -> object:
    from std_msgs.msg import Header

    return Header(frame_id="camera_optical")


def test_the_annotation_is_the_boxs_outline() -> None:
    from siam_tracker_ros.nodes.drawing import COLOURS
    from siam_tracker_ros.nodes.overlays import to_annotation

    marker = to_annotation(header(), BOX, "tracking")
    assert (marker.type, marker.action) == (marker.POLYGON, marker.ADD)
    corners = [(point.x, point.y) for point in marker.points]
    assert corners == [(85.0, 70.0), (115.0, 70.0), (115.0, 90.0), (85.0, 90.0)]
    colour = marker.outline_color
    assert [255 * v for v in (colour.b, colour.g, colour.r)] == pytest.approx(COLOURS["tracking"])
    assert to_annotation(header(), BOX, "uncertain").outline_color != colour
    gone = to_annotation(header(), None, "lost")
    assert (gone.action, gone.id, gone.ns) == (gone.REMOVE, marker.id, marker.ns)


@pytest.mark.parametrize("lens", [[], [-0.3, 0.1, 0.001, -0.002, 0.0]])
def test_the_markers_corners_project_to_the_boxs(lens: list[float]) -> None:
    from visualization_msgs.msg import Marker

    from siam_tracker_ros.nodes.overlays import to_markers

    camera = CameraRays(MATRIX, np.array(lens), "plumb_bob", (320, 240))
    lines, label = to_markers(header(), BOX, "tracking", "duck 0.93", camera).markers
    points = np.array([[p.x, p.y, p.z] for p in lines.points]).reshape(4, 4, 3)
    assert (points[:, 0] == 0.0).all()  # rays begin in the camera
    np.testing.assert_array_equal(points[:, 1], points[:, 2])
    pixels = camera.project(points[:, 1])
    np.testing.assert_allclose(pixels, [[85, 70], [115, 70], [115, 90], [85, 90]], atol=0.01)
    np.testing.assert_array_equal(points[:, 3], np.roll(points[:, 1], -1, axis=0))
    assert lines.type == Marker.LINE_LIST and lines.header.frame_id == "camera_optical"
    assert label.type == Marker.TEXT_VIEW_FACING and label.text == "duck 0.93"
    assert label.pose.position.y < points[0, 1, 1]


def test_without_a_box_all_markers_go() -> None:
    from siam_tracker_ros.nodes.overlays import to_markers

    camera = CameraRays(MATRIX, np.zeros(0), "", (320, 240))
    (gone,) = to_markers(header(), None, "lost", "", camera).markers
    assert gone.action == gone.DELETEALL
