"""``siam-tracker compare``: models on the same sequences, with the error of each difference."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from siam_tracker_ros.cli.common import (
    CommandError,
    console,
    find_sequences,
    parse_names,
    table,
    write_json,
)
from siam_tracker_ros.cli.evaluate import fps_text
from siam_tracker_ros.cli.scoring import makers, run_all
from siam_tracker_ros.evaluation.metrics import FIGURES
from siam_tracker_ros.evaluation.peers import PEERS
from siam_tracker_ros.tracking import TrackerSettings


@dataclass(frozen=True)
class Column:
    """One tracker's figures, sequence by sequence, as a results file has them."""

    name: str
    sequences: dict[str, dict[str, Any]]

    def mean(self, figure: str) -> float:
        """Return the mean of ``figure`` over the sequences."""
        return float(np.mean([s[figure] for s in self.sequences.values()]))


def difference(first: Column, other: Column, figure: str) -> tuple[float, float]:
    """Return the mean difference other - first over the sequences, and its standard error."""
    gaps = np.array(
        [other.sequences[n][figure] - first.sequences[n][figure] for n in first.sequences]
    )
    error = float(gaps.std(ddof=1) / math.sqrt(len(gaps))) if len(gaps) > 1 else math.nan
    return float(gaps.mean()), error


def read_column(file: Path) -> Column:
    """Read a file that ``siam-tracker evaluate`` wrote.

    Raises:
        CommandError: if it is not such a file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        column = Column(content["tracker"]["name"], content["sequences"])
        for figures in column.sequences.values():
            for figure in (*FIGURES, "fps"):
                float(figures[figure])
    except FileNotFoundError:
        raise CommandError(f"no such file: {file}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"{file}: not written by siam-tracker evaluate ({error})") from None
    return column


def compare(
    trackers: Annotated[
        list[str],
        typer.Argument(
            help="Bundles (name or path) or results (NAME.json). The first is compared to."
        ),
    ],
    peers: Annotated[
        str | None, typer.Option(help=f"Also these, comma-separated: {', '.join(PEERS)}.")
    ] = None,
    sequences: Annotated[
        Path | None, typer.Option(help="As for evaluate; without: the data's sequences/.")
    ] = None,
    names: Annotated[str | None, typer.Option(help="Only these sequences.")] = None,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("out/evaluation"),
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of a tracker.")] = 2,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
) -> None:
    """Compare trackers on the same sequences.

    The difference to the first is given with the standard error of the mean of the differences
    sequence by sequence: less than twice that error says nothing.
    """
    files = [t for t in trackers if t.endswith(".json")]
    models = [t for t in trackers if t not in files]
    wanted = parse_names(peers)
    columns = {t: read_column(Path(t)) for t in files}
    if models or wanted:
        clips = find_sequences(sequences, names)
        todo = makers(models, wanted, backend=backend, threads=threads, settings=TrackerSettings())
        summaries = run_all(todo, clips, workers=workers, cache=out / "results")
        for key, summary in zip([*models, *wanted], summaries, strict=True):
            summary.write(out / f"{summary.tracker}.json")
            content = summary.to_json()
            columns[key] = Column(summary.tracker, content["sequences"])
    ordered = [columns[key] for key in [*trackers, *wanted]]
    if len(ordered) < 2:
        raise CommandError("two trackers at least are needed for a comparison")
    common = set.intersection(*(set(c.sequences) for c in ordered))
    if not common:
        raise CommandError("these results have no sequence in common")
    dropped = sorted(set.union(*(set(c.sequences) for c in ordered)) - common)
    if dropped:
        console.print(f"Not in all of them, so left out: {', '.join(dropped)}", highlight=False)
    ordered = [Column(c.name, {n: c.sequences[n] for n in sorted(common)}) for c in ordered]

    rows = []
    for column in ordered:
        gap, error = difference(ordered[0], column, "auc")
        rows.append(
            [
                column.name,
                *(f"{column.mean(f):.3f}" for f in ("auc", "ao", "sr50", "sr75", "precision")),
                "" if column is ordered[0] else f"{gap:+.3f}",
                "" if column is ordered[0] or math.isnan(error) else f"{error:.3f}",
                fps_text(column.mean("fps")),
            ]
        )
    head = ["tracker", "AUC", "AO", "SR.50", "SR.75", "P 20 px", "AUC diff", "± s.e.", "fps"]
    console.print(table(f"{len(common)} sequences", head, rows))
    write_json(
        out / "comparison.json",
        {
            "sequences": sorted(common),
            "trackers": [
                {
                    "name": c.name,
                    **{f: c.mean(f) for f in (*FIGURES, "fps")},
                    "auc_difference": difference(ordered[0], c, "auc")[0],
                }
                for c in ordered
            ],
        },
    )
