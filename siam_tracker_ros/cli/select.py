"""``siam-tracker select``: tells a running tracker_node what to follow."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from siam_tracker_ros.cli.common import CommandError, console, parse_box
from siam_tracker_ros.geometry import Box


def select(
    box: Annotated[str, typer.Option(help="x,y,w,h in pixels; x, y: the first pixel, from 0.")],
    stamp: Annotated[
        str,
        typer.Option(help="Of the image it is on, seconds (as in `ros2 topic echo`); 0: newest."),
    ] = "0",
    frame: Annotated[
        str, typer.Option(help="frame_id of the image, to be sure; without: any.")
    ] = "",
    label: Annotated[str, typer.Option(help="What it is.")] = "target",
    id: Annotated[str, typer.Option(help="Name of the track; without: a counter.")] = "",
    namespace: Annotated[str, typer.Option(help="The tracker's namespace.")] = "",
    target: Annotated[str, typer.Option(help="Topic of selections.")] = "target",
    status: Annotated[
        str, typer.Option(help="Topic of the tracker's status.")
    ] = "tracker_node/status",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 5.0,
) -> None:
    """Select a target on a ROS graph: publishes a Detection2D and prints the tracker's verdict.

    Exit status 2: nobody listens, or the selection was refused; the reason is printed.
    """
    wanted = Box.from_xywh(*parse_box(box))
    nanoseconds = parse_stamp(stamp)
    try:
        from siam_tracker_ros.nodes.select_once import SelectError, select_once
    except ImportError as error:
        raise CommandError(
            f"ROS 2 is not on the path ({error}): source /opt/ros/<distro>/setup.bash, or use "
            "`scripts/with_ros.sh siam-tracker select ...`"
        ) from error
    try:
        verdict = select_once(
            wanted,
            stamp=nanoseconds,
            frame_id=frame,
            id=id,
            label=label,
            target=target,
            status=status,
            namespace=namespace,
            timeout=timeout,
        )
    except SelectError as error:
        raise CommandError(str(error)) from error
    console.print(verdict, highlight=False)


def parse_stamp(text: str) -> int:
    """Return nanoseconds of a text with seconds, exactly.

    Raises:
        typer.BadParameter: if it is no such time.
    """
    try:
        nanoseconds = Decimal(text) * 1_000_000_000
        if nanoseconds != nanoseconds.to_integral_value() or not 0 <= nanoseconds < 2**61:
            raise InvalidOperation
    except (InvalidOperation, ValueError):
        raise typer.BadParameter(
            f"a stamp is seconds with at most nine decimals, got {text!r}"
        ) from None
    return int(nanoseconds)
