"""``siam-tracker evaluate-redetection``: a target disappears and comes back; how soon is that known?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import (
    CommandError,
    console,
    find_sequences,
    parse_settings,
    table,
    write_json,
)
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL, code_fingerprint
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.redetection import (
    COLUMNS,
    AbsenceTimes,
    cases,
    counted_tracker,
    markdown,
    play,
    summarise,
    table_rows,
)
from siam_tracker_ros.inference import open_session


def evaluate_redetection(
    model: Annotated[
        list[str] | None,
        typer.Option(help=f"A bundle's name or path; may be repeated. Without: {DEFAULT_MODEL}."),
    ] = None,
    sequences: Annotated[
        Path | None,
        typer.Option(help="NAME.mp4 with NAME.txt, or OTB layout; without: the data's sequences/."),
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Only these sequences, comma-separated; two at least.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("out/redetection"),
    looks: Annotated[
        int, typer.Option(min=1, help="Looks for a lost target a frame: the time budget, counted.")
    ] = 4,
    absent: Annotated[int, typer.Option(min=1, help="Frames without the target.")] = 40,
    after: Annotated[int, typer.Option(min=1, help="Frames in which it must be found.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of starts, places and sides.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Threads of a tracker; 0: its choice.")] = 2,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A tracker setting, NAME=NUMBER; may be repeated."),
    ] = None,
) -> None:
    """Measure how soon a loss is declared, how soon the target is found again, and how often wrongly.

    Each sequence is made into four clips: the target is covered by a sliding patch, or the view pans
    away from it; without and with a look-alike. Writes redetection.json (every case) and
    redetection.md (the table).
    """
    settings = parse_settings(setting)
    clips = find_sequences(sequences, names)
    if len(clips) < 2:
        raise CommandError("two sequences at least: a target is hidden by another clip's picture")
    times = AbsenceTimes(absent=absent, after=after)
    todo = cases(clips)
    rows, report = [], {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for name in model or [DEFAULT_MODEL]:
            bundle = load_bundle(name)
            task = progress.add_task(bundle.name, total=len(todo))
            session = open_session(bundle, backend, intra_op_threads=threads)
            try:
                tracker = counted_tracker(bundle, session, settings, looks)
                outcomes = []
                for case in todo:
                    outcomes.append(play(tracker, case, times, seed))
                    progress.advance(task)
            finally:
                session.close()
            rows += table_rows(bundle.name, outcomes, times)
            report[bundle.name] = {
                "bundle_fingerprint": bundle.fingerprint,
                "backend": session.description,
                "all": summarise(outcomes, times).to_json(),
                "outcomes": [asdict(outcome) for outcome in outcomes],
            }
    write_json(
        out / "redetection.json",
        {
            "times": asdict(times),
            "looks": looks,
            "seed": seed,
            "settings": {k: v for k, v in asdict(settings).items() if v is not None},
            "sequences": {clip.name: clip.fingerprint() for clip in clips},
            "code": code_fingerprint(),
            "machine": describe_machine(),
            "models": report,
        },
    )
    (out / "redetection.md").write_text(markdown(rows), encoding="utf-8")
    console.print(table(f"{len(clips)} sequences, {looks} looks a frame", list(COLUMNS), rows))
    console.print(f"redetection.json and redetection.md are in {out}", highlight=False)
