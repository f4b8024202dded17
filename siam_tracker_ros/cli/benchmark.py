"""``siam-tracker benchmark``: how fast a model is here, alone or through ROS 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import CommandError, console, table, write_json
from siam_tracker_ros.evaluation import Sequence, read_sequence, require_data, synthetic_sequence
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL
from siam_tracker_ros.evaluation.speed import SpeedReport, measure_speed

SYNTHETIC = "synthetic"


def benchmark(
    model: Annotated[str, typer.Option(help="A bundle's name or path.")] = DEFAULT_MODEL,
    clip: Annotated[
        str,
        typer.Option(
            help="synthetic (1280x720), an annotated clip, or the name of one of the data's."
        ),
    ] = SYNTHETIC,
    frames: Annotated[int, typer.Option(min=8, help="At most so many frames.")] = 300,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: the session's choice.")] = 2,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    ros: Annotated[
        bool, typer.Option("--ros", help="Measure through ROS 2: camera to detection.")
    ] = False,
    duration: Annotated[float, typer.Option(min=5, help="With --ros: seconds.")] = 60.0,
    rate: Annotated[float, typer.Option(min=1, help="With --ros: images a second.")] = 30.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where the figures go; without: out/benchmark.")
    ] = None,
) -> None:
    """Measure the times of crop, session step and whole update, and frames a second.

    With --ros, video_publisher_node and tracker_node run as two processes with the shipped Fast DDS
    profile, and the latency from image stamp to detection and the lost images are measured.
    """
    if ros:
        from siam_tracker_ros.cli.ros_benchmark import measure_ros

        measure_ros(
            model, backend, threads, duration, rate, json_file or Path("out/benchmark/ros.json")
        )
        return
    report = measure_speed(
        load_bundle(model),
        find_clip(clip, frames),
        backend=backend,
        threads=threads,
        frames=frames,
    )
    content = report.to_json()
    show(report, content["machine"])
    file = json_file or Path("out/benchmark") / f"{report.model}.json"
    write_json(file, content)
    console.print(f"Written to {file}", highlight=False)


def find_clip(clip: str, frames: int) -> Sequence:
    """Return the synthetic clip, an annotated clip by its path, or one of the data folder by name.

    Raises:
        CommandError, SequenceError: if there is no such clip.
    """
    if clip == SYNTHETIC:
        return synthetic_sequence(1280, 720, frames)
    path = Path(clip)
    if not path.exists() and path.name == clip and not path.suffix:
        path = require_data("sequences") / f"{clip}.mp4"
        if not path.exists():
            raise CommandError(f"no clip {clip!r}, neither here nor in {path.parent}")
    return read_sequence(path)


def show(report: SpeedReport, machine: dict[str, Any]) -> None:
    """Print the report."""
    rows = []
    parts = {"crop": report.crop_ms, "session.step": report.step_ms, "update": report.update_ms}
    for name, times in parts.items():
        rows.append([name, *(f"{times[k]:.2f}" for k in ("p50", "p95", "max"))])
    size = f"{report.picture[0]}x{report.picture[1]}"
    title = f"{report.model}: {report.session}, {size} ({report.clip})"
    console.print(table(title, ["ms", "p50", "p95", "max"], rows))
    console.print(
        f"{report.updates_per_second:.0f} updates/s one after the other, "
        f"{report.steps_per_second:.0f} session steps/s back to back; "
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1min']}",
        highlight=False,
    )
