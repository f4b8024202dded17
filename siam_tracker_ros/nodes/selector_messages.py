"""Messages of target_selector_node: the picture as a point cloud, and what is drawn on it."""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from siam_tracker_ros.nodes.picture_cloud import POINT, Colour

NAMESPACE = "selection"


def to_point_cloud(header: Header, points: npt.NDArray[np.void]) -> PointCloud2:
    """Return an organised sensor_msgs/PointCloud2 of points of the kind ``POINT``."""
    rows, columns = points.shape
    message = PointCloud2(header=header, height=rows, width=columns)
    offsets: Mapping[str, Any] = POINT.fields or {}
    message.fields = [
        PointField(name=name, offset=offsets[name][1], datatype=PointField.FLOAT32, count=1)
        for name in POINT.names or ()
    ]
    message.point_step = POINT.itemsize
    message.row_step = POINT.itemsize * columns
    message.is_dense = not bool(np.isnan(points["z"]).any())
    data = array.array("B")
    data.frombytes(points.tobytes())
    message.data = data
    return message


def to_lines(
    header: Header, lines: Sequence[tuple[npt.NDArray[np.float64], Colour]], width: float
) -> MarkerArray:
    """Return closed or open lines (points ``[N,3]``, metres) that replace those sent before."""
    wipe = Marker(header=header, ns=NAMESPACE, action=Marker.DELETEALL)
    markers = [wipe]
    for number, (points, (r, g, b)) in enumerate(lines):
        if len(points) < 2:
            continue
        marker = Marker(header=header, ns=NAMESPACE, id=number, type=Marker.LINE_STRIP)
        marker.action = Marker.ADD
        marker.pose.orientation.w = 1.0
        marker.scale.x = width
        marker.color = ColorRGBA(r=r / 255, g=g / 255, b=b / 255, a=1.0)
        marker.lifetime = Duration()
        marker.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in points]
        markers.append(marker)
    return MarkerArray(markers=markers)
