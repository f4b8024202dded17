"""Runs models and peers over sequences for the verbs evaluate and compare."""

from __future__ import annotations

from collections.abc import Sequence as Several
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from siam_tracker_ros.cli.common import CommandError, console
from siam_tracker_ros.evaluation import Sequence, Summary, evaluate_tracker
from siam_tracker_ros.evaluation.benchmarks import OnBad
from siam_tracker_ros.evaluation.bundled import BundleTrackerMaker
from siam_tracker_ros.evaluation.metrics import OTB, Rules
from siam_tracker_ros.evaluation.peers import PEERS, PeerError, PeerMaker
from siam_tracker_ros.evaluation.protocol import RealTime
from siam_tracker_ros.tracking import TrackerSettings

Maker = BundleTrackerMaker | PeerMaker


def makers(
    models: Several[str],
    peers: Several[str],
    *,
    backend: str,
    threads: int,
    settings: TrackerSettings,
    precision: str = "fp32",
) -> list[Maker]:
    """Return a maker for each model and peer, checked: bundles are found, peers can be made here.

    Raises:
        CommandError: if there is nothing to run, two would be called the same, or a precision is
            asked for on TensorRT.
        BundleError, PeerError, FileNotFoundError: naming what is missing.
    """
    if precision != "fp32":
        if backend == "tensorrt":
            raise CommandError("--precision is for ONNX Runtime: leave --backend tensorrt out")
        backend = "onnxruntime"
    found: list[Maker] = [
        BundleTrackerMaker(m, backend, threads, settings, precision) for m in models
    ]
    found += [PeerMaker(kind, threads) for kind in peers]
    if not found:
        raise CommandError("nothing to run: name a model or a peer")
    names = [maker.name for maker in found]
    for name in names:
        if names.count(name) > 1:
            raise CommandError(f"{name} is named twice: results are kept by name")
    for maker in found:
        if isinstance(maker, PeerMaker):
            maker()
    return found


def runnable_peers(threads: int) -> list[str]:
    """Return the peers that can run here, and say which cannot and why."""
    found = []
    for kind in PEERS:
        try:
            PeerMaker(kind, threads)()
        except (PeerError, FileNotFoundError) as error:
            console.print(f"left out: {error}", highlight=False, markup=False)
        else:
            found.append(kind)
    return found


def run_all(
    todo: Several[Maker],
    sequences: Several[Sequence],
    *,
    workers: int,
    cache: Path | None,
    rules: Rules = OTB,
    realtime: RealTime | None = None,
    on_bad: OnBad = "stop",
) -> list[Summary]:
    """Evaluate all of ``todo``, one after the other, with a progress bar.

    Arguments as for ``evaluate_tracker``.
    """
    summaries = []
    with sequence_progress() as progress:
        for maker in todo:
            name = maker.name if realtime is None else f"{maker.name}-{realtime.label}"
            task = progress.add_task(name, total=len(sequences))
            summaries.append(
                evaluate_tracker(
                    maker,
                    sequences,
                    workers=workers,
                    cache=cache,
                    rules=rules,
                    realtime=realtime,
                    on_bad=on_bad,
                    on_result=lambda _, task=task: progress.advance(task),  # type: ignore[misc]
                )
            )
    return summaries


def sequence_progress() -> Progress:
    """Return a progress bar that counts sequences."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
