"""``siam-tracker vot-trax``: a model as a tracker of the VOT toolkit, over its TraX protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from siam_tracker_ros.cli.common import parse_settings
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL, BundleTrackerMaker
from siam_tracker_ros.evaluation.trax import TraxServer, client_streams


def vot_trax(
    model: Annotated[str, typer.Option(help="A bundle's name or path.")] = DEFAULT_MODEL,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Threads of a tracker; 0: its choice.")] = 2,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A tracker setting, NAME=NUMBER; may be repeated."),
    ] = None,
) -> None:
    """Follow what a TraX client (the VOT toolkit) selects, until it quits.

    Speaks over standard input and output, or over the port that TRAX_SOCKET names. Takes pictures
    by path and from memory, and rectangles and polygons; answers rectangles, with the score as
    ``confidence``. While the target is lost, its last known box is answered.
    """
    maker = BundleTrackerMaker(model, backend, threads, parse_settings(setting))
    reading, writing = client_streams()
    TraxServer(reading, writing, maker(), maker.name).serve()
