"""``siam-tracker benchmark --ros``: from camera image to detection, through processes.

A made-up scene of 1280x720 pixels is published as cameras do it (best effort) by one process,
tracker_node is another, and a third records. All have the shipped Fast DDS profile.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import CommandError, console, table, write_json
from siam_tracker_ros.cli.demo import first_frame_repeats, model_argument
from siam_tracker_ros.cli.ros_processes import (
    Process,
    own_domain,
    own_namespace,
    require_ros,
    transport_profile,
)
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.recording import Recording, RecordingError, read_recording
from siam_tracker_ros.evaluation.verdict import run_figures

WIDTH, HEIGHT = 1280, 720
START_SECONDS = 90.0
"""What the graph may take to come up, on top of the measured time."""

OVERHEAD_LIMIT_MS = 2.0


def measure_ros(
    model: str, backend: str, threads: int, duration: float, rate: float, file: Path
) -> None:
    """Run the graph for ``duration`` seconds, print the figures and write them to ``file``.

    Raises:
        CommandError: if the graph fails; the message ends with what it said last.
    """
    bundle = load_bundle(model)
    ros2 = require_ros()
    folder = file.parent / f"{file.stem}_run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parameters = folder / "tracker.yaml"
    values = {
        "model": model_argument(model),
        "backend": backend,
        "intra_op_threads": threads,
    }
    # JSON is YAML
    parameters.write_text(json.dumps({"/**": {"ros__parameters": values}}) + "\n", encoding="utf-8")
    frames = round(duration * rate)
    recording, repeats = run_graph(ros2, folder, parameters, frames, rate, duration)
    figures = {
        **run_figures(recording, repeats),
        "model": bundle.name,
        "model_fingerprint": bundle.fingerprint,
        "picture": [WIDTH, HEIGHT],
        "rate_hz": rate,
        "duration_s": duration,
        "threads": threads,
        "reliability": "best_effort",
        "machine": describe_machine(),
    }
    write_json(file, figures)
    show(recording, figures)
    console.print(f"Written to {file}", highlight=False)
    if recording.counts.processed == 0:
        why = recording.why_nothing
        typer.echo(f"siam-tracker benchmark: no frame was processed: {why}", err=True)
        raise typer.Exit(1)


def run_graph(
    ros2: str, folder: Path, parameters: Path, frames: int, rate: float, duration: float
) -> tuple[Recording, int | None]:
    """Run publisher, tracker and recorder until the recorder ends."""
    target = folder / "recording"
    run = [ros2, "run", "siam_tracker_ros"]
    namespace = ["-r", f"__ns:=/{own_namespace()}"]
    recorder_command = [*run, "recorder_node", "--ros-args", *namespace]
    recorder_command += ["-r", "status:=tracker_node/status"]
    recorder_command += ["-p", f"out:={target.absolute()}", "-p", "quiet:=2.5"]
    publisher_command = [*run, "video_publisher_node", "--ros-args", *namespace]
    for name, value in {
        "rate": float(rate),
        "frames": frames,
        "select_first": "true",
        "wait_for_recorder": "true",
        "reliability": "best_effort",
        "scene.width": WIDTH,
        "scene.height": HEIGHT,
        "scene.frames": frames,
    }.items():
        publisher_command += ["-p", f"{name}:={value}"]
    tracker_command = [ros2, "launch", "siam_tracker_ros", "tracker.launch.py"]
    tracker_command += [f"params_file:={parameters.absolute()}", f"namespace:={own_namespace()}"]
    with own_domain() as domain:
        environment = {"ROS_DOMAIN_ID": domain, **transport_profile()}

        def start(command: list[str], name: str) -> Process:
            return stack.enter_context(Process(command, folder / f"{name}.log", environment))

        with ExitStack() as stack:
            stack.enter_context(
                console.status(f"running for {duration:g} s in ROS domain {domain} ...")
            )
            recorder = start(recorder_command, "recorder")
            tracker = start(tracker_command, "tracker")
            publisher = start(publisher_command, "publisher")
            processes = (recorder, tracker, publisher)
            until = time.monotonic() + duration + START_SECONDS
            while recorder.status is None and time.monotonic() < until:
                time.sleep(0.2)
                broken = next((p for p in processes if p.status not in (None, 0)), None)
                if broken is not None:
                    raise CommandError(
                        f"{' '.join(broken.command[1:4])} failed; it said last:\n{broken.tail()}"
                    )
            if recorder.status is None:
                said = "\n".join(p.tail(4) for p in processes)
                raise CommandError(f"the graph did not end in time; it said last:\n{said}")
    try:
        recording = read_recording(target, f"scene {WIDTH}x{HEIGHT}")
    except RecordingError as error:
        raise CommandError(f"{error}; the recorder said last:\n{recorder.tail()}") from None
    if recording.log.entries and not recording.from_the_start:
        raise CommandError("the recorder came up too late to hear everything: run it once more")
    return recording, first_frame_repeats(folder / "publisher.log")


def show(recording: Recording, figures: dict[str, Any]) -> None:
    """Print the figures, with what they are measured against."""
    counts = recording.counts
    latency = figures["latency_ms"] or {}

    def text(value: float | None, digits: int = 0) -> str:
        return "not known" if value is None else f"{value:.{digits}f}"

    overhead = recording.node_number("overhead_ms_p50")
    rows = [
        ["frames published", text(counts.published)],
        ["received by the tracker", text(counts.received)],
        ["processed", text(counts.processed)],
        ["did not reach the tracker", text(figures["frames"]["not_received"])],
        ["lost in transport", text(counts.lost_in_transport)],
        ["skipped, tracker busy", text(counts.skipped_busy)],
        ["image stamp to detection p50, ms", text(latency.get("p50"), 2)],
        ["image stamp to detection p95, ms", text(latency.get("p95"), 2)],
        ["session.step p50, ms *", text(recording.node_number("step_ms_p50"), 2)],
        [f"node overhead p50, ms (limit {OVERHEAD_LIMIT_MS:g}) *", text(overhead, 2)],
        ["node overhead p95, ms *", text(recording.node_number("overhead_ms_p95"), 2)],
        ["average overlap", text(figures["average_overlap"], 3)],
    ]
    if memory := figures["memory_mb"]:
        rows.append(
            [
                "memory of the node early, late, MB **",
                f"{memory['early']:.1f}, {memory['late']:.1f}",
            ]
        )
    title = f"{figures['model']}, {WIDTH}x{HEIGHT} at {figures['rate_hz']:g} Hz"
    console.print(table(title, ["", "value"], rows))
    machine = figures["machine"]
    console.print(
        f"* of the last 300 images, as tracker_node says. {recording.node.get('backend', '')}; "
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1min']}",
        highlight=False,
    )
    if figures["memory_mb"]:
        console.print("** medians of the second and of the last tenth of the run.", highlight=False)
