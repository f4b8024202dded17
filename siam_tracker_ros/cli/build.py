"""``siam-tracker build``: a bundle's TensorRT engines, ahead of the node's first start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.inference import (
    PRECISIONS,
    BackendError,
    BuildProgress,
    EngineBuild,
    default_engine_folder,
    find_tensorrt,
)

EVERY_S = 10.0
"""Where there is no terminal: a line of progress so often."""


def build(
    model: Annotated[str, typer.Option(help="A bundle's name or path.")],
    precision: Annotated[
        str, typer.Option(help="auto (fp16 where the bundle has it), fp32, fp16 or int8.")
    ] = "auto",
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where engines are kept; without: the user's cache folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even what is there.")] = False,
) -> None:
    """Build the engines of a model on this machine's GPU, for this machine's TensorRT.

    The node does the same when it first needs them; it then finds these. Ctrl-C stops the build and
    leaves the cache as it was.
    """
    if precision not in PRECISIONS:
        raise typer.BadParameter(f"choose one of {', '.join(PRECISIONS)}, got {precision!r}")
    bundle = load_bundle(model)
    try:
        trt, gpu = find_tensorrt()
    except BackendError as error:
        raise BackendError(f"engines are built on the GPU that runs them: {error}") from error
    console = Console(highlight=False, soft_wrap=True)
    folder = cache_dir or default_engine_folder()
    console.print(f"{bundle.name}, TensorRT {trt.__version__}, {gpu.identity.name}: {folder}")
    began = time.monotonic()
    with _Display(console) as display:
        running = EngineBuild(
            bundle,
            precision,
            cache_dir=cache_dir,
            force=force,
            on_progress=display.progress,
            say=display.say,
        )
        graphs = running.wait()
    built = [graph for graph, what in graphs.items() if what == "built"]
    if built:
        seconds = time.monotonic() - began
        console.print(f"Built in {seconds:.0f} s: {', '.join(built)}")
    else:
        console.print("The engines were there already (--force builds them again)")


class _Display:
    """A bar for each graph on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.fields[graph]:9}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, object] = {}
        self._said: tuple[str, int] | None = None

    def __enter__(self) -> _Display:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line)

    def progress(self, progress: BuildProgress) -> None:
        """Show how far a graph is."""
        if not self._console.is_terminal:
            now = (progress.graph, int(progress.seconds // EVERY_S))
            if now != self._said:
                self._said = now
                self._console.print(str(progress))
            return
        if progress.graph not in self._tasks:
            self._tasks[progress.graph] = self._bars.add_task("", total=None, graph=progress.graph)
        total = None if progress.fraction is None else 1.0
        self._bars.update(
            self._tasks[progress.graph],  # type: ignore[arg-type]
            description=progress.phase,
            total=total,
            completed=progress.fraction or 0.0,
        )
