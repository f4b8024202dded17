"""``siam-tracker gpu-benchmark``: engines, parity, times and ceilings of everything prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siam_tracker_ros.cli.common import CommandError, console
from siam_tracker_ros.evaluation.gpu_benchmark import RESULTS, TABLE, Settings, run
from siam_tracker_ros.evaluation.gpu_inputs import PreparedError


def gpu_benchmark(
    prepared: Annotated[Path, typer.Option(help="What siam-tracker gpu-prepare made.")] = Path(
        "out/gpu/prepared"
    ),
    out: Annotated[Path, typer.Option(help=f"Gets {RESULTS} and {TABLE}.")] = Path(
        "out/gpu/results"
    ),
    work: Annotated[Path, typer.Option(help="Engines, and what was measured before.")] = Path(
        "out/gpu/work"
    ),
    minutes: Annotated[float, typer.Option(min=0.0, help="Begin nothing after this time.")] = 60.0,
    steps: Annotated[int, typer.Option(min=10, help="Steps that are timed.")] = 300,
    torch_python: Annotated[
        str | None, typer.Option(help="A Python with torch; without: torch is left out.")
    ] = None,
) -> None:
    """Build engines, check them against the reference, and time them by the GPU's own clock.

    Exits with 1 if a part failed or was left out, with 3 if there is no GPU or no TensorRT; what
    was measured is written in any case.
    """
    settings = Settings(prepared, out, work, minutes, steps, torch_python=torch_python)

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    try:
        status = run(settings, say=say)
    except PreparedError as error:
        raise CommandError(str(error)) from error
    say(f"Written to {out / RESULTS} and {out / TABLE}")
    if status:
        raise typer.Exit(status)
