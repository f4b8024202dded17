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
    find_benchmark,
    parse_names,
    table,
    write_json,
)
from siam_tracker_ros.cli.evaluate import fps_text
from siam_tracker_ros.cli.scoring import makers, run_all
from siam_tracker_ros.evaluation.metrics import FIGURES, OTB, RULES, Rules, figure_name
from siam_tracker_ros.evaluation.peers import PEERS
from siam_tracker_ros.tracking import TrackerSettings


@dataclass(frozen=True)
class Column:
    """One tracker's figures, sequence by sequence, as a results file has them."""

    name: str
    sequences: dict[str, dict[str, Any]]
    rules: Rules = OTB

    def mean(self, figure: str) -> float:
        """Return the mean of ``figure`` over the sequences, or over their frames by the rules."""
        values = [s[figure] for s in self.sequences.values()]
        if self.rules.average == "frames":
            weights = [s["frames"] - 1 for s in self.sequences.values()]
            return float(np.average(values, weights=weights))
        return float(np.mean(values))


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
        rules = RULES[content.get("benchmark", "otb")]
        column = Column(content["tracker"]["name"], content["sequences"], rules)
        for figures in column.sequences.values():
            for figure in (*FIGURES, "fps", "frames"):
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
    protocol: Annotated[
        str | None, typer.Option(help=f"{', '.join(RULES)}. Without: seen from the layout.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="A benchmark's part, as for evaluate.")] = None,
    names: Annotated[str | None, typer.Option(help="Only these sequences.")] = None,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("out/evaluation"),
    workers: Annotated[
        int, typer.Option("--jobs", "--workers", min=1, help="Processes; speeds are fair with 1.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of a tracker.")] = 2,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime or tensorrt.")] = "auto",
) -> None:
    """Compare trackers on the same sequences, by the first figure of their benchmark.

    The difference to the first is given with the standard error of the mean of the differences
    sequence by sequence: less than twice that error says nothing.
    """
    files = [t for t in trackers if t.endswith(".json")]
    models = [t for t in trackers if t not in files]
    wanted = parse_names(peers)
    columns = {t: read_column(Path(t)) for t in files}
    if models or wanted:
        found = find_benchmark(sequences, names, protocol=protocol, split=split, on_bad="stop")
        if not found.scored:
            raise CommandError(f"the truth of {found.rules.title} {found.split} is on a server")
        todo = makers(models, wanted, backend=backend, threads=threads, settings=TrackerSettings())
        summaries = run_all(
            todo, found.sequences, workers=workers, cache=out / "results", rules=found.rules
        )
        for key, summary in zip([*models, *wanted], summaries, strict=True):
            summary.write(out / f"{summary.tracker}.json")
            content = summary.to_json()
            columns[key] = Column(summary.tracker, content["sequences"], found.rules)
    ordered = [columns[key] for key in [*trackers, *wanted]]
    if len(ordered) < 2:
        raise CommandError("two trackers at least are needed for a comparison")
    rules = ordered[0].rules
    if other := next((c for c in ordered if c.rules != rules), None):
        raise CommandError(
            f"{ordered[0].name} was scored by the rules of {rules.title}, {other.name} by those of "
            f"{other.rules.title}: their figures do not compare"
        )
    common = set.intersection(*(set(c.sequences) for c in ordered))
    if not common:
        raise CommandError("these results have no sequence in common")
    dropped = sorted(set.union(*(set(c.sequences) for c in ordered)) - common)
    if dropped:
        console.print(f"Not in all of them, so left out: {', '.join(dropped)}", highlight=False)
    ordered = [Column(c.name, {n: c.sequences[n] for n in sorted(common)}, rules) for c in ordered]

    figure = rules.headline[0]
    shown = [figure, *(f for f in FIGURES[:-1] if f != figure)]
    rows = []
    for column in ordered:
        gap, error = difference(ordered[0], column, figure)
        rows.append(
            [
                column.name,
                *(f"{column.mean(f):.3f}" for f in shown),
                "" if column is ordered[0] else f"{gap:+.3f}",
                "" if column is ordered[0] or math.isnan(error) else f"{error:.3f}",
                fps_text(column.mean("fps")),
            ]
        )
    names_shown = [figure_name(f, rules) for f in shown]
    head = ["tracker", *names_shown, f"{names_shown[0]} diff", "± s.e.", "fps"]
    console.print(table(f"{len(common)} sequences", head, rows))
    write_json(
        out / "comparison.json",
        {
            "sequences": sorted(common),
            "trackers": [
                {
                    "name": c.name,
                    **{f: c.mean(f) for f in (*FIGURES, "fps")},
                    f"{figure}_difference": difference(ordered[0], c, figure)[0],
                }
                for c in ordered
            ],
        },
    )
