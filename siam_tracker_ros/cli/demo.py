"""``siam-tracker demo``: a real clip through a real ROS 2 graph, and what came of it."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from siam_tracker_ros.bundle import find_bundle, load_bundle
from siam_tracker_ros.cli.common import CommandError, console, parse_box, table, write_json
from siam_tracker_ros.cli.demo_clip import DemoClip, choose_clip
from siam_tracker_ros.cli.ros_processes import (
    Process,
    own_domain,
    own_namespace,
    require_ros,
    transport_profile,
)
from siam_tracker_ros.evaluation import open_frames
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.recording import Recording, RecordingError, read_recording
from siam_tracker_ros.evaluation.sequences import OTB_TRUTH
from siam_tracker_ros.evaluation.verdict import run_figures, shortcomings

MODES = ("realtime", "lockstep")
PATIENCE = 150.0
"""Seconds without anything new in the recording after which a run is ended."""


def demo(
    clip: Annotated[
        Path | None,
        typer.Option(help="A video, a folder of pictures or an OTB folder; without: see below."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(help="The object in its first frame, x,y,w,h; without: NAME.txt beside it."),
    ] = None,
    model: Annotated[str, typer.Option(help="A bundle's name or path.")] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("out/demo"),
    mode: Annotated[
        str, typer.Option(help="realtime: at the clip's rate; lockstep: each frame waited for.")
    ] = "realtime",
    rate: Annotated[float, typer.Option(min=0, help="Frames a second; 0: the clip's.")] = 0.0,
    frames: Annotated[int, typer.Option(min=0, help="At most so many frames; 0: all.")] = 0,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    video: Annotated[bool, typer.Option(help="Write the annotated video.")] = True,
) -> None:
    """Follow an object in a clip over a real ROS 2 graph.

    One process publishes the clip as camera images, another is tracker_node, a third records; the
    first box goes out on `target`, `detection` comes back. Without --clip it is a sequence of
    SIAM_TRACKER_DATA, or else a clip from a pinned PyPI package. Writes track.mp4, track.png,
    track.csv and figures.json; exit status 1 says that the figures are bad.
    """
    if mode not in MODES:
        raise typer.BadParameter(f"a mode is {' or '.join(MODES)}, got {mode!r}")
    chosen = choose_clip(clip, None if box is None else parse_box(box))
    bundle = load_bundle(model)
    ros2 = require_ros()
    out.mkdir(parents=True, exist_ok=True)
    console.print(f"{chosen.name} ({chosen.origin}), {bundle.name}, {mode}; ROS 2", highlight=False)
    recording, repeats = run_graph(
        ros2,
        chosen,
        model_argument(model),
        out,
        lockstep=mode == "lockstep",
        rate=rate,
        frames=frames,
        backend=backend,
    )
    problems = shortcomings(recording, lockstep=mode == "lockstep")
    figures = {
        **run_figures(recording, repeats),
        "mode": mode,
        "model": bundle.name,
        "model_fingerprint": bundle.fingerprint,
        "problems": problems,
        "machine": describe_machine(),
    }
    write_json(out / "figures.json", figures)
    if recording.log.entries:
        thresholds = (bundle.presence.lost, bundle.presence.found)
        write_pictures(recording, chosen, out, thresholds, video)
        show(recording, figures)
    console.print(f"Written to {out}", highlight=False)
    if problems:
        for problem in problems:
            typer.echo(f"siam-tracker demo: BAD: {problem}", err=True)
        raise typer.Exit(1)


def model_argument(model: str) -> str:
    """Return what a process in another folder finds the bundle by."""
    return str(find_bundle(model).resolve())


def stage(clip: DemoClip, folder: Path) -> Path:
    """Put a clip and NAME.txt (the selection first) side by side, as the publisher wants them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = clip.path / "img" if (clip.path / OTB_TRUTH).is_file() else clip.path
    name = clip.name.replace(".", "_")
    link = folder / (name if source.is_dir() else name + source.suffix)
    link.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    rows = [clip.box] if clip.truth is None else [clip.box, *clip.truth[1:]]
    lines = (",".join(f"{float(v):.4f}" for v in row) + "\n" for row in rows)
    (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    return link


def run_graph(
    ros2: str,
    clip: DemoClip,
    model: str,
    out: Path,
    *,
    lockstep: bool,
    rate: float,
    frames: int,
    backend: str,
) -> tuple[Recording, int | None]:
    """Run demo.launch.py to its end; returns the recording and the repeats of the first frame.

    Raises:
        CommandError: if the graph fails; the message ends with what it said last.
    """
    folder = out / "recording"
    shutil.rmtree(folder, ignore_errors=True)
    arguments = {
        "clip": str(stage(clip, out / "clip").absolute()),
        "out": str(folder.absolute()),
        "model": model,
        "backend": backend,
        "lockstep": str(lockstep).lower(),
        "rate": str(float(rate)),
        "frames": str(frames),
        "namespace": own_namespace(),
    }
    command = [ros2, "launch", "siam_tracker_ros", "demo.launch.py"]
    command += [f"{name}:={value}" for name, value in arguments.items()]
    with own_domain() as domain:
        environment = {"ROS_DOMAIN_ID": domain, **transport_profile()}
        with (
            console.status(f"running in ROS domain {domain}, /{own_namespace()} ..."),
            Process(command, out / "launch.log", environment) as process,
        ):
            ended = _wait(process, folder)
    said = process.tail()
    if not ended:
        raise CommandError(f"nothing happened for {PATIENCE:g} s; the graph said last:\n{said}")
    try:
        recording = read_recording(folder, clip.name)
    except RecordingError as error:
        raise CommandError(f"{error}; the graph said last:\n{said}") from None
    if not recording.log.entries:
        typer.echo(said, err=True)
    return recording, first_frame_repeats(out / "launch.log")


def _wait(process: Process, folder: Path) -> bool:
    """Wait for the end of ``process``; return False if the recording stopped growing before."""
    size, since = -1, time.monotonic()
    while process.wait(1.0) is None:
        now = sum(f.stat().st_size for f in folder.glob("*.jsonl"))
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            return False
    return True


def first_frame_repeats(log: Path) -> int | None:
    """Return how often the publisher says that it sent the first frame again; None: not said."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"(\d+) repeats of the first", text)
    return int(found[-1]) if found else None


def write_pictures(
    recording: Recording,
    clip: DemoClip,
    out: Path,
    thresholds: tuple[float, float],
    video: bool,
) -> None:
    """Write the table, the plot and the annotated video of a run."""
    from siam_tracker_ros.evaluation.report import plot_track
    from siam_tracker_ros.evaluation.video import write_annotated_video

    log = recording.log
    log.write_csv(out / "track.csv")
    plot_track(log, out / "track.png", thresholds)
    if video:
        path = clip.path / "img" if (clip.path / OTB_TRUTH).is_file() else clip.path
        source = open_frames(path)
        until = log.entries[-1].frame + 1
        write_annotated_video(out / "track.mp4", source, source.fps, log, until)


def show(recording: Recording, figures: dict[str, Any]) -> None:
    """Print the figures of a run."""

    def number(value: float | None, digits: int = 3, unit: str = "") -> str:
        return "not known" if value is None else f"{value:.{digits}f}{unit}"

    counts = recording.counts
    repeats = figures["first_frame_repeats"]
    again = f" (with {repeats} repeats of the first)" if repeats else ""
    latency = figures["latency_ms"] or {}
    rows = [
        ["frames published", number(counts.published, 0)],
        ["frames received", number(counts.received, 0) + again],
        ["frames processed", number(counts.processed, 0)],
        ["did not reach the tracker", number(figures["frames"]["not_received"], 0)],
        ["lost in transport", number(counts.lost_in_transport, 0)],
        ["skipped, tracker busy", number(counts.skipped_busy, 0)],
        ["average overlap", _overlap(figures)],
        ["mean score", number(figures["mean_score"])],
        ["lost", number(_percent(figures["lost_share"]), 1, " % of the frames")],
        ["final state", str(figures["final_state"])],
        ["image stamp to detection, p50", number(latency.get("p50"), 1, " ms")],
        ["image stamp to detection, p95", number(latency.get("p95"), 1, " ms")],
        ["node overhead, p50", number(recording.node_number("overhead_ms_p50"), 2, " ms")],
        ["session", recording.node.get("backend", "not known")],
    ]
    console.print(table(figures["clip"], ["", "value"], rows))


def _overlap(figures: dict[str, Any]) -> str:
    value = figures["average_overlap"]
    return "no ground truth" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
