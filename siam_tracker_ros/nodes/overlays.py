"""What viewers draw over the picture and into the scene: ``~/annotations`` and ``~/markers``."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import ImageMarker, Marker, MarkerArray

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.camera_rays import CameraRays
from siam_tracker_ros.nodes.drawing import colour_of

LINE_WIDTH = 2.0
"""Of the box over the picture, pixels."""

RAY_LENGTH = 1.0
"""How far before the camera the box is drawn into the scene, metres: its distance is not known."""

SHOWN_FOR = 1
"""Seconds after which viewers forget a marker that is not renewed."""


def to_annotation(header: Header, box: Box | None, state: str) -> ImageMarker:
    """Return the box as a visualization_msgs/ImageMarker; without a box, one that removes it.

    Points are pixels with the middle of the first one at (0, 0); the colour tells the state.
    """
    marker = ImageMarker(header=header, ns="target", type=ImageMarker.POLYGON)
    if box is None:
        marker.action = ImageMarker.REMOVE
        return marker
    x1, y1, x2, y2 = (float(edge) for edge in box.edges)
    marker.scale = LINE_WIDTH
    marker.outline_color = _colour(state)
    marker.lifetime = Duration(sec=SHOWN_FOR)
    marker.points = [Point(x=x, y=y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    return marker


def to_markers(
    header: Header, box: Box | None, state: str, text: str, camera: CameraRays
) -> MarkerArray:
    """Return the box as seen from the camera: its corners' rays, its outline, and a line of text.

    Args:
        header: of the image; the markers are in the camera's optical frame.
        box: image pixels; None, or one whose corners no ray reaches, takes the markers away.
        state: tracking, uncertain or lost, for the colour.
        text: what is written beside it.
        camera: of the image.
    """
    gone = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    if box is None:
        return gone
    x1, y1, x2, y2 = (float(edge) for edge in box.edges)
    seen = camera.rays(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]))
    if not np.isfinite(seen).all():
        return gone
    corners = [Point(x=RAY_LENGTH * x, y=RAY_LENGTH * y, z=RAY_LENGTH) for x, y in seen.tolist()]
    lines = Marker(header=header, ns="target", id=0, type=Marker.LINE_LIST, action=Marker.ADD)
    lines.pose.orientation.w = 1.0
    lines.scale.x = 0.005 * RAY_LENGTH
    lines.color = _colour(state)
    lines.lifetime = Duration(sec=SHOWN_FOR)
    for i, corner in enumerate(corners):
        lines.points += [Point(), corner, corner, corners[(i + 1) % 4]]
    label = Marker(header=header, ns="target", id=1, type=Marker.TEXT_VIEW_FACING)
    label.pose.orientation.w = 1.0
    label.pose.position = Point(
        x=(corners[0].x + corners[1].x) / 2, y=corners[0].y - 0.04 * RAY_LENGTH, z=RAY_LENGTH
    )
    label.scale.z = 0.05 * RAY_LENGTH
    label.color = _colour(state)
    label.lifetime = Duration(sec=SHOWN_FOR)
    label.text = text
    return MarkerArray(markers=[lines, label])


def _colour(state: str) -> ColorRGBA:
    blue, green, red = (value / 255 for value in colour_of(state))
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)
