"""``siam-tracker study``: training configurations under the same data and budget, several seeds each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import isnan, nan
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from siam_tracker_ros.cli.common import CommandError, console, find_sequences, table, write_json
from siam_tracker_ros.cli.scoring import run_all
from siam_tracker_ros.evaluation import Sequence
from siam_tracker_ros.evaluation.bundled import BundleTrackerMaker
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.tracking import TrackerSettings

FOLLOW_ALWAYS = TrackerSettings(found=0.0, lost=0.0)
"""States off: what is compared is the network, not thresholds that a short run cannot measure."""

PARITY_FRAMES = 10
"""Of the rendered clip in a run's parity.json: these bundles are to be scored, not shipped."""

TUNING = "tuning."
"""Keys of a variant that are the bundle's."""

SHOWN = ("auc", "ao", "sr50", "sr75")


@dataclass(frozen=True)
class Entry:
    """One line of the table: its costs, and the figures of each seed.

    ``untrained``: of a configuration's start; a variant has none. ``base``: the configuration of a variant.
    """

    name: str
    parameters: int
    macs: int
    untrained: dict[str, Any] | None
    trained: list[dict[str, Any]]
    base: str | None

    def mean(self, figure: str) -> float:
        """Return the mean over the seeds."""
        return float(np.mean([seed[figure] for seed in self.trained]))

    def spread(self, figure: str) -> float:
        """Return the standard deviation over the seeds; NaN for a single one."""
        values = [seed[figure] for seed in self.trained]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def minus(self, other: Entry, figure: str) -> tuple[float, float]:
        """Return the mean difference to ``other``, seed by seed, and its standard deviation."""
        pairs = zip(self.trained, other.trained, strict=True)
        differences = [one[figure] - another[figure] for one, another in pairs]
        spread = np.std(differences, ddof=1) if len(differences) > 1 else float("nan")
        return float(np.mean(differences)), float(spread)


def study(
    configs: Annotated[list[Path], typer.Argument(help="Training configurations to compare.")],
    out: Annotated[Path, typer.Option(help="Runs, bundles and results.")] = Path("out/study"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each configuration.")] = 3,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            help="Also without a part: NAME:KEY=VALUE, several keys parted by a semicolon, e.g. "
            '--variant "no ARM:loss.arm=0;tuning.arm=0" (tuning.*: of the bundle, not of the training)',
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one key of all of them, e.g. --set run.epochs=2"),
    ] = None,
    sequences: Annotated[
        Path | None, typer.Option(help="As for evaluate; without: the data's sequences/.")
    ] = None,
    names: Annotated[str | None, typer.Option(help="Only these sequences.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a tracker.")] = 2,
) -> None:
    """Train configurations under one budget, several seeds each, and score them.

    With variants, each configuration as it is and once for each variant. Each run is trained,
    exported and evaluated on the sequences with the states switched off, and so is the untrained
    start of each configuration. A seed gives a configuration and its variants the same samples,
    so that their differences are taken seed by seed. What is there already is not done again, so
    the command may be stopped, and several may share OUT with different configurations. Ends with
    OUT/study.json and OUT/study.md.
    """
    kinds = [Variant("", (), {}), *(read_variant(text) for text in variants or [])]
    clips = find_sequences(sequences, names)
    changes = list(override or [])
    entries = [
        _entry(config, variant, out, seeds, changes, clips, threads)
        for config in configs
        for variant in kinds
    ]
    show(entries, len(clips), seeds)
    write_json(
        out / "study.json",
        {
            "set": changes,
            "variants": variants or [],
            "seeds": seeds,
            "sequences": [clip.name for clip in clips],
            "entries": [asdict(entry) for entry in entries],
        },
    )
    (out / "study.md").write_text(markdown(entries), encoding="utf-8")


@dataclass(frozen=True)
class Variant:
    """A configuration with a part changed: its name, changed keys, and changed tuning of the bundle."""

    name: str
    changes: tuple[str, ...]
    tuning: dict[str, float]

    def of(self, config: Path) -> str:
        """Return what the variant of a configuration is called, in tables and as a folder."""
        return f"{config.stem} {self.name}".strip().replace(" ", "_")


def read_variant(text: str) -> Variant:
    """Read ``NAME:KEY=VALUE;KEY=VALUE``.

    Raises:
        CommandError: if it is not that.
    """
    name, colon, rest = text.partition(":")
    pairs = [pair.strip() for pair in rest.split(";") if pair.strip()]
    plain = all(c.isalnum() or c in " -_." for c in name) and name.strip(" .")
    if not colon or not plain or not pairs or not all("=" in pair for pair in pairs):
        raise CommandError(
            f"--variant {text!r}: NAME:KEY=VALUE is wanted, NAME of letters, digits, blanks, '-', '_' and '.'"
        )
    tuning = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key.startswith(TUNING):
            try:
                tuning[key.removeprefix(TUNING)] = float(value)
            except ValueError:
                raise CommandError(f"--variant {text!r}: {key} takes a number") from None
    changes = tuple(pair for pair in pairs if not pair.startswith(TUNING))
    return Variant(name.strip(), changes, tuning)


def _entry(
    config: Path,
    variant: Variant,
    out: Path,
    seeds: int,
    changes: list[str],
    clips: list[Sequence],
    threads: int,
) -> Entry:
    from siam_tracker_ros.deployment.costs import measure_costs
    from siam_tracker_ros.networks.build import make_network
    from siam_tracker_ros.training.config import load_config

    changes = [*changes, *variant.changes]
    costs = measure_costs(make_network(load_config(config, changes).network))
    label = variant.of(config)
    figures = []
    for seed in range(1 if variant.name else 0, seeds + 1):  # 0: the untrained start
        name = f"{label}_seed{seed}" if seed else f"{label}_untrained"
        result = out / f"{name}.json"
        given = [*changes, f"run.seed={max(seed, 1)}"]
        bundle = _bundle(config, given, variant.tuning, out, name, bool(seed))
        if not result.is_file():
            maker = BundleTrackerMaker(str(bundle), "onnxruntime", threads, FOLLOW_ALWAYS)
            (summary,) = run_all([maker], clips, workers=1, cache=out / "results")
            summary.write(result)
        figures.append(_figures(result))
    if variant.name:
        return Entry(label, costs.parameters, costs.macs, None, figures, config.stem)
    return Entry(label, costs.parameters, costs.macs, figures[0], figures[1:], None)


def _figures(result: Path) -> dict[str, Any]:
    """Return the means over the sequences of a results file."""
    sequences = json.loads(result.read_text(encoding="utf-8"))["sequences"].values()
    return {f: float(np.mean([s[f] for s in sequences])) for f in SHOWN}


def _bundle(
    config: Path,
    changes: list[str],
    tuning: dict[str, float],
    out: Path,
    name: str,
    trained: bool,
) -> Path:
    """Return the folder of one run's bundle, making what is missing.

    Raises:
        CommandError: if one is there that another configuration made.
    """
    import torch

    from siam_tracker_ros.bundle import load_bundle
    from siam_tracker_ros.deployment.export import export_bundle
    from siam_tracker_ros.networks.build import make_network
    from siam_tracker_ros.networks.checkpoint import load_network
    from siam_tracker_ros.training.config import load_config
    from siam_tracker_ros.training.run import backbone_weights, train

    folder, run = out / "models" / name, out / "runs" / name
    values = load_config(config, changes)
    made_by = json.loads(json.dumps(asdict(values)))  # tuples as lists, as bundle.yaml has them
    if (folder / "bundle.yaml").is_file():
        found = load_bundle(folder)
        same = found.provenance.get("config") == made_by
        if not same or any(found.tuning.get(key) != value for key, value in tuning.items()):
            raise CommandError(
                f"{folder} was made by another configuration: choose another --out, or remove it"
            )
        return folder
    console.print(f"{name}:", highlight=False)
    torch.set_num_threads(max(1, values.run.threads))
    if trained:
        network = load_network(train(values, run, resume=True))
    else:
        torch.manual_seed(values.run.seed)
        network = make_network(values.network, backbone_weights(values)).eval()
    clip = synthetic_sequence(320, 240, PARITY_FRAMES)
    export_bundle(
        network,
        folder,
        name=name,
        tuning=tuning,
        provenance={"config": made_by},
        clips=[clip],
        half=False,
    )
    return folder


HEAD = ["configuration", "M", "GMAC", "start", "AUC", "± s.d.", "SR.50", "SR.75"]
AGAINST = ["AUC - base", "± s.d.", "SR.75 - base", "± s.d."]


def _lines(entries: list[Entry]) -> tuple[list[str], list[list[str]]]:
    """Return the table's heads and lines; with variants, what parts them from their configuration too."""
    whole = {entry.name: entry for entry in entries}
    lines = [_row(entry) for entry in entries]
    if all(entry.base is None for entry in entries):
        return HEAD, lines
    for line, entry in zip(lines, entries, strict=True):
        for figure in ("auc", "sr75"):
            mean, spread = entry.minus(whole[entry.base], figure) if entry.base else (nan, nan)
            line += [_number(mean, "+.3f"), _number(spread)]
    return [*HEAD, *AGAINST], lines


def _row(entry: Entry) -> list[str]:
    return [
        entry.name,
        f"{entry.parameters / 1e6:.2f}",
        f"{entry.macs / 1e9:.3f}",
        _number(entry.untrained["auc"] if entry.untrained else nan),
        _number(entry.mean("auc")),
        _number(entry.spread("auc")),
        *(_number(entry.mean(figure)) for figure in ("sr50", "sr75")),
    ]


def _number(value: float, form: str = ".3f") -> str:
    return "" if isnan(value) else format(value, form)


def show(entries: list[Entry], sequences: int, seeds: int) -> None:
    """Print a line a configuration: means over the seeds, and the AUC's standard deviation."""
    title = (
        f"{sequences} sequences, mean of {seeds} seeds, states off; M parameters and GMAC a frame; "
        "start: AUC untrained"
    )
    heads, lines = _lines(entries)
    console.print(table(title, heads, lines))


def markdown(entries: list[Entry]) -> str:
    """Return the table as Markdown."""
    heads, lines = _lines(entries)
    rows = [heads, ["---"] + ["---:"] * (len(heads) - 1), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
