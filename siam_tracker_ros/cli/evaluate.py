"""``siam-tracker evaluate``: models and peers on annotated sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siam_tracker_ros.cli.common import console, find_sequences, parse_names, parse_settings, table
from siam_tracker_ros.cli.scoring import makers, run_all, runnable_peers, success_overlaps
from siam_tracker_ros.evaluation import Sequence, Summary
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL
from siam_tracker_ros.evaluation.peers import PEERS


def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(help=f"A bundle's name or path; may be repeated. Without: {DEFAULT_MODEL}."),
    ] = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Run the peers alone.")] = False,
    peers: Annotated[
        str | None, typer.Option(help=f"Comma-separated: {', '.join(PEERS)}; or all.")
    ] = None,
    sequences: Annotated[
        Path | None,
        typer.Option(help="NAME.mp4 with NAME.txt, or OTB layout; without: the data's sequences/."),
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Only these sequences, comma-separated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("out/evaluation"),
    workers: Annotated[int, typer.Option(min=1, help="Processes; speeds are fair with 1.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of a tracker; 0: its choice.")] = 2,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A tracker setting, NAME=NUMBER; may be repeated."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not use earlier results.")] = False,
    per_sequence: Annotated[
        bool, typer.Option("--per-sequence", help="Also show each sequence.")
    ] = False,
) -> None:
    """Score models and published peers on annotated sequences: one pass from the first box.

    Writes NAME.json for each tracker (figures, protocol, machine, fingerprint), its boxes as text
    files, and success.png. Results are used again for the same tracker on the same sequence.
    """
    settings = parse_settings(setting)
    clips = find_sequences(sequences, names)
    wanted = runnable_peers(threads) if peers == "all" else parse_names(peers)
    models = [] if no_model else (model or [DEFAULT_MODEL])
    todo = makers(models, wanted, backend=backend, threads=threads, settings=settings)
    cache = out / "results"
    if fresh:
        _forget(cache, [f"{m.name}-{m.fingerprint[:12]}" for m in todo], clips)
    summaries = run_all(todo, clips, workers=workers, cache=cache)
    for summary in summaries:
        summary.write(out / f"{summary.tracker}.json")
    show(summaries, f"One pass from the first box, {len(clips)} sequences")
    if per_sequence:
        show_sequences(summaries)

    from siam_tracker_ros.evaluation.report import plot_success

    curves = {s.tracker: success_overlaps(s, clips) for s in summaries}
    plot_success(curves, out / "success.png", f"Success, {len(clips)} sequences")
    console.print(f"Results, figures and success.png are in {out}", highlight=False)


def _forget(cache: Path, trackers: list[str], clips: list[Sequence]) -> None:
    for tracker in trackers:
        for clip in clips:
            (cache / tracker / f"{clip.name}.frames.csv").unlink(missing_ok=True)


def show(summaries: list[Summary], title: str) -> None:
    """Print one line a tracker, best AUC first."""
    columns = ["tracker", "AUC", "± s.e.", "AO", "SR.50", "SR.75", "P 20 px", "P norm", "fps"]
    rows = []
    for s in sorted(summaries, key=lambda s: -s.auc):
        mean = s.mean
        figures = (mean.ao, mean.sr50, mean.sr75, mean.precision, mean.normalised_precision)
        error = s.standard_error()
        rows.append(
            [
                s.tracker,
                f"{mean.auc:.3f}",
                f"{error:.3f}" if error == error else "",
                *(f"{v:.3f}" for v in figures),
                fps_text(s.fps),
            ]
        )
    console.print(table(title, columns, rows))


def fps_text(fps: float) -> str:
    """Return frames a second; nothing for a tracker that does nothing."""
    return f"{fps:.0f}" if fps < 1e5 else ""


def show_sequences(summaries: list[Summary]) -> None:
    """Print the AUC of each tracker on each sequence."""
    rows = []
    for index, result in enumerate(summaries[0].results):
        rows.append([result.name, *(f"{s.results[index].scores.auc:.3f}" for s in summaries)])
    console.print(table("AUC", ["sequence", *(s.tracker for s in summaries)], rows))
