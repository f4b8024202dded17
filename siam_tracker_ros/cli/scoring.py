"""Runs models and peers over sequences for the verbs evaluate and compare."""

from __future__ import annotations

from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from siam_tracker_ros.cli.common import CommandError, console
from siam_tracker_ros.evaluation import Sequence, Summary, evaluate_tracker, overlaps
from siam_tracker_ros.evaluation.bundled import BundleTrackerMaker
from siam_tracker_ros.evaluation.peers import PEERS, PeerError, PeerMaker
from siam_tracker_ros.tracking import TrackerSettings

Maker = BundleTrackerMaker | PeerMaker


def makers(
    models: Several[str],
    peers: Several[str],
    *,
    backend: str,
    threads: int,
    settings: TrackerSettings,
) -> list[Maker]:
    """Return a maker for each model and peer, checked: bundles are found, peers can be made here.

    Raises:
        CommandError: if there is nothing to run, or two would be called the same.
        BundleError, PeerError, FileNotFoundError: naming what is missing.
    """
    found: list[Maker] = [BundleTrackerMaker(m, backend, threads, settings) for m in models]
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
) -> list[Summary]:
    """Evaluate all of ``todo``, one after the other, with a progress bar."""
    summaries = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for maker in todo:
            task = progress.add_task(maker.name, total=len(sequences))
            summaries.append(
                evaluate_tracker(
                    maker,
                    sequences,
                    workers=workers,
                    cache=cache,
                    on_result=lambda _, task=task: progress.advance(task),  # type: ignore[misc]
                )
            )
    return summaries


def success_overlaps(summary: Summary, sequences: Several[Sequence]) -> list[Any]:
    """Return the overlaps of each sequence, frames without the target left out."""
    found = []
    for result, sequence in zip(summary.results, sequences, strict=True):
        found.append(overlaps(result.run.boxes, sequence.boxes)[sequence.present])
    return found
