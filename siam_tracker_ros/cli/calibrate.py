"""``siam-tracker calibrate``: make a bundle's score a probability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siam_tracker_ros.cli.common import CommandError, console, find_sequences, table
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from siam_tracker_ros.bundle import Bundle
    from siam_tracker_ros.evaluation.presence import Clip


def calibrate(
    model: Annotated[
        str, typer.Option(help="A bundle's name or path; its bundle.yaml and card are rewritten.")
    ] = DEFAULT_MODEL,
    sequences: Annotated[
        Path | None,
        typer.Option(
            help="Your own annotated clips (NAME.mp4 with NAME.txt, or OTB layout; NaN where the "
            "target is absent), every second one for the check. Without: clips made of the pictures "
            "that the bundle's training held out, in $SIAM_TRACKER_DATA/train."
        ),
    ] = None,
    clips: Annotated[
        int, typer.Option(min=10, help="Made clips, half of them for the check.")
    ] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Of the made clips.")] = 1,
    out: Annotated[Path, typer.Option(help="Gets NAME/presence.json and reliability.png.")] = Path(
        "out/presence"
    ),
    threads: Annotated[int, typer.Option(min=0, help="Threads of the network; 0: its choice.")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and report; leave the bundle as it is.")
    ] = False,
) -> None:
    """Fit the probability that the target is visible and the box right, and the states' thresholds.

    The bundle runs in its closed loop on clips that its weights have not seen; half of them, of other
    sources, tell how good the result is. Exits with 1, the bundle as it was, where the result is
    worse than what the bundle has.
    """
    import cv2

    from siam_tracker_ros.bundle import load_bundle
    from siam_tracker_ros.deployment import presence_fit
    from siam_tracker_ros.deployment.model_card import ModelCard
    from siam_tracker_ros.inference import open_session

    if threads:
        cv2.setNumThreads(threads)
    bundle = load_bundle(model)
    if sequences is None:
        fit, check = _made(bundle, clips, seed)
        what = f"`siam-tracker calibrate --model {bundle.name} --clips {clips} --seed {seed}`"
        how = (
            f"Measured on {len(check)} made clips of held-out pictures and videos, of other sources than the "
            f"{len(fit)} that it was fitted on: {what}."
        )
    else:
        fit, check = _own(sequences)
        how = f"Measured on {len(check)} annotated clips, others than the {len(fit)} that it was fitted on."
    session = open_session(bundle, "onnxruntime", intra_op_threads=threads)
    try:
        found = presence_fit.calibrate(
            bundle, session, fit, check, lambda line: console.print(line)
        )
    except presence_fit.PresenceError as error:
        raise CommandError(str(error)) from error
    finally:
        session.close()
    plain = presence_fit.presence_figures(found, how)
    columns = list(plain["rows"][0])
    rows = [[str(row[key]) for row in plain["rows"]] for key in columns]
    shown = [[key, *row] for key, row in zip(columns[1:], rows[1:], strict=True)]
    console.print(table(bundle.name, ["", *rows[0]], shown))
    console.print(plain["protocol"], highlight=False)
    presence_fit.write_report(found, out / bundle.name, bundle.name)
    console.print(f"presence.json and reliability.png are in {out / bundle.name}", highlight=False)
    if dry_run:
        return
    before, after = found.before, found.after
    if after.calibration_error > before.calibration_error or after.auroc < before.auroc - 0.01:
        console.print("not better than what the bundle has: it stays as it was", style="red")
        raise typer.Exit(1)
    presence_fit.rewrite_bundle(bundle, found, ModelCard.from_dict({"presence": plain}).presence)
    console.print(f"{bundle.path}: calibrated", highlight=False)


def _made(bundle: Bundle, count: int, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Clips of what the bundle's training held out."""
    from siam_tracker_ros.networks.config import ConfigError, from_mapping
    from siam_tracker_ros.training.config import TrainConfig
    from siam_tracker_ros.training.presence_clips import halves, presence_clips
    from siam_tracker_ros.training.run import read_sets
    from siam_tracker_ros.training.samples import split_sets
    from siam_tracker_ros.training.tar_sets import DataError

    kept = bundle.provenance.get("config") or {}
    values = {key: kept[key] for key in ("network", "data", "augmentation") if key in kept}
    if "data" not in values:
        raise CommandError(
            f"{bundle.path}: the bundle does not say what its training held out: give --sequences"
        )
    try:
        config = from_mapping(
            TrainConfig,
            {**values, "loss": {"kind": bundle.tracker}},
            f"{bundle.path}: provenance.config",
        )
        fit, check = halves(split_sets(read_sets(config), config.data, True))
        return (
            presence_clips(fit, config.data, count // 2, seed),
            presence_clips(check, config.data, count // 2, seed),
        )
    except (ConfigError, DataError) as error:
        raise CommandError(str(error)) from error


def _own(folder: Path) -> tuple[list[Clip], list[Clip]]:
    """A user's clips: every second one for the check."""
    import numpy as np

    from siam_tracker_ros.evaluation.presence import Clip

    clips = [Clip(s, np.ones(len(s), np.bool_)) for s in find_sequences(folder, None)]
    if len(clips) < 2:
        raise CommandError(
            f"{folder}: two annotated clips at least, to fit on one and check on one"
        )
    return clips[::2], clips[1::2]
