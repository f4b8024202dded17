"""What several verbs share: their options' texts, errors for people, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from siam_tracker_ros.bundle import BundleError
from siam_tracker_ros.evaluation import (
    ClipError,
    EvaluationError,
    Sequence,
    SequenceError,
    read_sequences,
    require_data,
)
from siam_tracker_ros.evaluation.benchmarks import Benchmark, OnBad, read_benchmark
from siam_tracker_ros.evaluation.peers import PeerError
from siam_tracker_ros.evaluation.trax import TraxError
from siam_tracker_ros.evaluation.video import VideoError
from siam_tracker_ros.inference import BackendError
from siam_tracker_ros.tracking import SelectionError, TrackerSettings


class CommandError(RuntimeError):
    """Something is wrong with what a verb was given, or what it found; said in one line."""


EXPECTED = (
    CommandError,
    BundleError,
    BackendError,
    SelectionError,
    ClipError,
    SequenceError,
    EvaluationError,
    PeerError,
    TraxError,
    VideoError,
    FileNotFoundError,
)
"""Errors whose message says all that a user needs."""

console = Console()

Xywh = tuple[float, float, float, float]


def parse_box(text: str) -> Xywh:
    """Return x,y,w,h of a text such as ``100,50,40,30``.

    Raises:
        typer.BadParameter: if it is not four numbers, or has no extent.
    """
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"a box is x,y,w,h in pixels, got {text!r}") from None
    if not (w > 0 and h > 0):
        raise typer.BadParameter(f"a box needs a width and a height, got {text!r}")
    return x, y, w, h


def parse_names(text: str | None) -> list[str]:
    """Return the parts of a comma-separated list, without blanks and doubles."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def parse_settings(texts: list[str] | None) -> TrackerSettings:
    """Return a tracker's settings from texts such as ``lost=0.2``.

    Raises:
        typer.BadParameter: naming what is not a setting or out of range.
    """
    changes: dict[str, Any] = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            separator = ""
        if not separator:
            raise typer.BadParameter(f"a setting is NAME=NUMBER, got {text!r}")
        changes[name.strip()] = int(number) if number.is_integer() else number
    try:
        return TrackerSettings().with_changes(**changes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def find_sequences(folder: Path | None, names: str | None) -> list[Sequence]:
    """Return the sequences of ``folder``, or of the data folder; all or those named.

    Raises:
        SequenceError, FileNotFoundError: if they are not there.
    """
    folder = require_data("sequences") if folder is None else folder
    return read_sequences(folder, parse_names(names) or None)


def find_benchmark(
    folder: Path | None,
    names: str | None,
    *,
    protocol: str | None,
    split: str | None,
    on_bad: OnBad,
) -> Benchmark:
    """Return the sequences of a benchmark's folder, or of the data folder, with its rules.

    Says what was left out, and what the published split has beside what is here.

    Raises:
        SequenceError, ClipError, FileNotFoundError: if they are not there, or cannot be read.
    """
    folder = require_data("sequences") if folder is None else folder
    wanted = parse_names(names) or None
    found = read_benchmark(folder, protocol, names=wanted, split=split, on_bad=on_bad)
    say_skipped(found.skipped)
    if found.absent and wanted is None:
        console.print(
            f"{found.absent} published sequences of the split {found.split} are not in {folder}",
            highlight=False,
            markup=False,
        )
    return found


def say_skipped(skipped: dict[str, str]) -> None:
    """Print how many sequences were left out, and why each was."""
    if skipped:
        console.print(f"Left out {len(skipped)} sequences:", highlight=False)
    for name, why in skipped.items():
        console.print(f"  {name}: {why}", highlight=False, markup=False)


def write_json(file: Path, content: Any) -> None:
    """Write ``content`` to ``file``, making its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """Return a table: the first column is text, the others are numbers."""
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        # a long name is folded in a narrow terminal; a number never is
        justify: Literal["left", "right"] = "left" if index == 0 else "right"
        result.add_column(column, justify=justify, no_wrap=index > 0, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result
