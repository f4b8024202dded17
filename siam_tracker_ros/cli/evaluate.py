"""``siam-tracker evaluate``: models and peers on annotated sequences and published benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siam_tracker_ros.cli.common import (
    CommandError,
    console,
    find_benchmark,
    parse_names,
    parse_settings,
    say_skipped,
    table,
)
from siam_tracker_ros.cli.scoring import Maker, makers, run_all, runnable_peers, sequence_progress
from siam_tracker_ros.evaluation import Sequence, Summary
from siam_tracker_ros.evaluation.benchmarks import Benchmark, OnBad
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL
from siam_tracker_ros.evaluation.metrics import FIGURES, OTB, RULES, Rules, figure_name
from siam_tracker_ros.evaluation.peers import PEERS
from siam_tracker_ros.evaluation.protocol import RealTime, run_tracker


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
        typer.Option(
            help="A benchmark's folder, or one of NAME.mp4 with NAME.txt; without: the data's "
            "sequences/."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(RULES)}: layout and rules. Without: seen from the layout."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="A benchmark's part: val, test, TEST, TRAIN_0, UAV20L ...")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Only these sequences, comma-separated.")
    ] = None,
    on_bad: Annotated[
        str, typer.Option(help="A sequence that cannot be read: stop, or skip it and count it.")
    ] = "stop",
    realtime: Annotated[
        float | None,
        typer.Option(
            help="Also a real-time run: frames arrive at this rate, and a busy tracker misses some."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("out/evaluation"),
    workers: Annotated[
        int,
        typer.Option("--jobs", "--workers", min=1, help="Processes; speeds are fair with 1."),
    ] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of a tracker; 0: its choice.")] = 2,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32; or fp16, int8: those graphs of the models, on ONNX Runtime.")
    ] = "fp32",
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

    Reads OTB, GOT-10k, LaSOT, TrackingNet and UAV123 in their published layouts and scores each by
    its own rules. Writes NAME.json for each tracker (figures, protocol, machine, fingerprint), its
    boxes as text files, success.png and report.html; for the test sets of GOT-10k and TrackingNet,
    whose truth is on a server, the file to submit. Each sequence's result is used again for the
    same tracker, so that a run that was ended goes on.
    """
    settings = parse_settings(setting)
    bad = _on_bad(on_bad)
    arrival = _realtime(realtime, workers)
    found = find_benchmark(sequences, names, protocol=protocol, split=split, on_bad=bad)
    wanted = runnable_peers(threads) if peers == "all" else parse_names(peers)
    models = [] if no_model else (model or [DEFAULT_MODEL])
    todo = makers(
        models, wanted, backend=backend, threads=threads, settings=settings, precision=precision
    )
    cache = out / "results"
    if fresh:
        _forget(cache, todo, found.sequences, arrival)
    if not found.scored:
        _submit(todo, found, out, workers, bad)
        return
    modes: list[RealTime | None] = [None] if arrival is None else [None, arrival]
    summaries = [
        summary
        for mode in modes
        for summary in run_all(
            todo,
            found.sequences,
            workers=workers,
            cache=cache,
            rules=found.rules,
            realtime=mode,
            on_bad=bad,
        )
    ]
    for summary in summaries:
        summary.write(out / f"{summary.tracker}.json")
    for summary in summaries[:1]:  # the same sequences for all
        say_skipped(summary.skipped)
    part = f" {found.split}" if found.split else ""
    count = len(summaries[0].results)
    show(
        summaries,
        f"One pass from the first box, {count} sequences"
        + ("" if found.rules is OTB else f", rules of {found.rules.title}{part}"),
        found.rules,
    )
    if per_sequence:
        show_sequences(summaries, found.rules)

    from siam_tracker_ros.evaluation.html_report import write_report
    from siam_tracker_ros.evaluation.report import plot_success

    means = {s.tracker: s.curves.success for s in summaries}
    plot_success(means, out / "success.png", f"Success, {count} sequences")
    write_report(out / "report.html", summaries, found.sequences)
    console.print(f"Results, figures, success.png and report.html are in {out}", highlight=False)


def _on_bad(text: str) -> OnBad:
    if text == "stop":
        return "stop"
    if text == "skip":
        return "skip"
    raise typer.BadParameter(f"--on-bad is stop or skip, got {text!r}")


def _realtime(fps: float | None, workers: int) -> RealTime | None:
    if fps is None:
        return None
    if workers > 1:
        raise CommandError("--realtime measures time, which several --jobs take from each other")
    try:
        return RealTime(fps)
    except ValueError as error:
        raise typer.BadParameter(f"--realtime: {error}") from None


def _submit(todo: list[Maker], found: Benchmark, out: Path, workers: int, on_bad: OnBad) -> None:
    """Run on sequences whose truth is on a server, and write what it takes."""
    from siam_tracker_ros.evaluation.submission import write_submission

    with sequence_progress() as progress:
        for maker in todo:
            task = progress.add_task(maker.name, total=len(found.sequences))
            runs = run_tracker(
                maker,
                found.sequences,
                workers=workers,
                cache=out / "results",
                on_bad=on_bad,
                on_run=lambda *_, task=task: progress.advance(task),  # type: ignore[misc]
            )
            file = write_submission(out / "submission", found.rules.name, runs)
            say_skipped(runs.skipped)
            progress.console.print(
                f"The truth is on the server of {found.rules.title}; to submit: {file}",
                highlight=False,
                markup=False,
            )


def _forget(
    cache: Path, todo: list[Maker], clips: tuple[Sequence, ...], arrival: RealTime | None
) -> None:
    for maker in todo:
        for label in ("", *([] if arrival is None else [f"-{arrival.label}"])):
            folder = cache / f"{maker.name}{label}-{maker.fingerprint[:12]}"
            for clip in clips:
                (folder / f"{clip.name}.frames.csv").unlink(missing_ok=True)


def show(summaries: list[Summary], title: str, rules: Rules = OTB) -> None:
    """Print one line a tracker, the best in the benchmark's first figure first."""
    first = rules.headline[0]
    late = any(s.realtime for s in summaries)
    # a real-time run's name is long: its table has the benchmark's own figures alone
    figures = [first, *(f for f in (rules.headline if late else FIGURES) if f != first)]
    columns = ["tracker", figure_name(first, rules), "± s.e."]
    columns += [figure_name(f, rules) for f in figures[1:]]
    columns += ["fps", *(["missed"] if late else [])]
    rows = []
    for s in sorted(summaries, key=lambda s: -getattr(s.mean, first)):
        mean = s.mean
        error = s.standard_error(first)
        rows.append(
            [
                s.tracker,
                f"{getattr(mean, first):.3f}",
                f"{error:.3f}" if error == error else "",
                *(f"{getattr(mean, f):.3f}" for f in figures[1:]),
                fps_text(s.fps),
                *([f"{s.missed:.0%}" if s.realtime else ""] if late else []),
            ]
        )
    console.print(table(title, columns, rows))


def fps_text(fps: float) -> str:
    """Return frames a second; nothing for a tracker that does nothing."""
    return f"{fps:.0f}" if fps < 1e5 else ""


def show_sequences(summaries: list[Summary], rules: Rules = OTB) -> None:
    """Print the benchmark's first figure of each tracker on each sequence."""
    figure = rules.headline[0]
    rows = []
    for index, result in enumerate(summaries[0].results):
        values = (getattr(s.results[index].scores, figure) for s in summaries)
        rows.append([result.name, *(f"{v:.3f}" for v in values)])
    console.print(
        table(figure_name(figure, rules), ["sequence", *(s.tracker for s in summaries)], rows)
    )
