"""``siam-tracker track``: one object through a clip, offline, without ROS."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import (
    CommandError,
    Xywh,
    console,
    parse_box,
    parse_settings,
    table,
    write_json,
)
from siam_tracker_ros.evaluation import open_frames, read_boxes, read_sequence
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL
from siam_tracker_ros.evaluation.frames import PictureFrames, VideoFrames
from siam_tracker_ros.evaluation.sequences import OTB_TRUTH
from siam_tracker_ros.evaluation.track_log import FrameEntry, TrackLog
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.tracking import Tracker


def track(
    clip: Annotated[Path, typer.Argument(help="A video, a folder of pictures, or an OTB folder.")],
    box: Annotated[
        str | None,
        typer.Option(help="The object in the first frame, x,y,w,h; without: the clip's truth."),
    ] = None,
    model: Annotated[str, typer.Option(help="A bundle's name or path.")] = DEFAULT_MODEL,
    out: Annotated[
        Path | None, typer.Option(help="Where results go; without: out/track/NAME.")
    ] = None,
    video: Annotated[bool, typer.Option(help="Write the annotated video.")] = True,
    truth: Annotated[
        Path | None, typer.Option(help="True boxes, x,y,w,h a line, to compare with.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="At most so many frames.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: the session's choice.")] = 0,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A tracker setting, NAME=NUMBER; may be repeated."),
    ] = None,
) -> None:
    """Follow one object through a clip, without ROS.

    Writes boxes.txt (x,y,w,h a line; nan while the target is lost), track.csv, track.png,
    figures.json and, if wanted, track.mp4.
    """
    settings = parse_settings(setting)
    chosen = None if box is None else parse_box(box)
    source, true_boxes = find_clip(clip, truth)
    if chosen is None:
        if true_boxes is None:
            raise CommandError(f"{clip}: no box is known for its first frame: give --box x,y,w,h")
        x, y, w, h = (float(v) for v in true_boxes[0])
        chosen = (x, y, w, h)
    bundle = load_bundle(model)
    name = clip.resolve().name if clip.is_dir() else clip.stem
    folder = out or Path("out/track") / name

    if threads > 0:
        cv2.setNumThreads(threads)
    session = open_session(bundle, backend, intra_op_threads=threads)
    try:
        session.warm_up()
        tracker = Tracker(bundle, session, settings)
        entries = follow(tracker, source, chosen, frames)
        description = session.description
    finally:
        session.close()
    log = TrackLog(name, entries, true_boxes, "update")
    if true_boxes is not None and len(true_boxes) < len(entries):
        raise CommandError(f"{len(true_boxes)} true boxes for {len(entries)} frames of {clip}")
    write_results(folder, log, source, video)
    figures = {**log.figures(), "model": bundle.name, "fingerprint": bundle.fingerprint}
    write_json(folder / "figures.json", {**figures, "session": description})
    show(log, bundle.name, description)
    console.print(f"Written to {folder}", highlight=False)


def find_clip(
    clip: Path, truth: Path | None
) -> tuple[VideoFrames | PictureFrames, np.ndarray | None]:
    """Return a clip's frames, and its true boxes where it has them beside it or they are named.

    Raises:
        ClipError, SequenceError: if something is missing or cannot be read.
    """
    if (clip / OTB_TRUTH).is_file():
        sequence = read_sequence(clip)
        found = None if truth is None else read_boxes(truth)
        return PictureFrames(clip / "img"), sequence.boxes if found is None else found
    source = open_frames(clip)
    if truth is None and clip.is_file() and clip.with_suffix(".txt").is_file():
        truth = clip.with_suffix(".txt")
    return source, None if truth is None else read_boxes(truth)


def follow(
    tracker: Tracker,
    source: VideoFrames | PictureFrames,
    box: Xywh,
    frames: int | None = None,
) -> tuple[FrameEntry, ...]:
    """Track ``box`` through the clip; returns one entry a frame."""
    entries = []
    for index, frame in enumerate(islice(source, frames)):
        picture = ArrayPicture(frame, "bgr")
        if index == 0:
            result = tracker.initialize(picture, Box.from_xywh(*box))
        else:
            result = tracker.update(picture, index / source.fps)
        xywh = None if result.box is None else result.box.xywh
        entries.append(
            FrameEntry(index, xywh, result.score, result.state.name, result.timing.total_ms)
        )
    return tuple(entries)


def write_results(
    folder: Path, log: TrackLog, source: VideoFrames | PictureFrames, video: bool
) -> None:
    """Write boxes, table, plot and video of a track into ``folder``."""
    from siam_tracker_ros.evaluation.report import plot_track
    from siam_tracker_ros.evaluation.video import write_annotated_video

    folder.mkdir(parents=True, exist_ok=True)
    nowhere = (math.nan,) * 4
    lines = (",".join(f"{v:.3f}" for v in e.box or nowhere) for e in log.entries)
    (folder / "boxes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    log.write_csv(folder / "track.csv")
    plot_track(log, folder / "track.png")
    if video:
        until = log.entries[-1].frame + 1
        write_annotated_video(folder / "track.mp4", source, source.fps, log, until)


def show(log: TrackLog, model: str, session: str) -> None:
    """Print a track's figures."""
    figures = log.figures()
    latency = figures["latency_ms"]
    rows = [
        ["model", model],
        ["session", session],
        ["frames", str(figures["processed"])],
        ["lost", f"{100 * figures['lost_share']:.1f} % of the frames"],
        ["final state", figures["final_state"]],
        ["mean score", f"{figures['mean_score']:.3f}"],
        ["update p50 / p95", f"{latency['p50']:.1f} / {latency['p95']:.1f} ms"],
    ]
    if figures["average_overlap"] is not None:
        rows.append(["average overlap", f"{figures['average_overlap']:.3f}"])
        rows.append(["success AUC", f"{figures['success_auc']:.3f}"])
    console.print(table(log.name, ["", "value"], rows))
