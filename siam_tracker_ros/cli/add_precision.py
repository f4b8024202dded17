"""``siam-tracker add-precision``: FP16 or INT8 graphs for a bundle that is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import CommandError, console
from siam_tracker_ros.evaluation import read_sequence

if TYPE_CHECKING:
    from siam_tracker_ros.bundle import Bundle
    from siam_tracker_ros.deployment.calibration import CalibrationClip

ADDABLE = ("fp16", "int8")


def add_precision(
    model: Annotated[str, typer.Option(help="A bundle's name or path; its folder is written to.")],
    precision: Annotated[str, typer.Option(help="fp16 or int8.")] = "fp16",
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="int8: NAME.mp4 with NAME.txt, an OTB folder, or a training set .tar."),
    ] = None,
) -> None:
    """Add a bundle's graphs in another precision, for TensorRT; the bundle's own graphs stay.

    INT8 needs --calibration (may be repeated): pictures like those that the robot will see. The
    layers' ranges are measured on them; they should not be what accuracy is measured on.
    """
    bundle = add(load_bundle(model), precision, calibration or [])
    size = sum(bundle.files[file].bytes for file in bundle.precisions[precision].values())
    console.print(f"{precision} graphs in {bundle.path} ({size / 1e6:.1f} MB)", highlight=False)


def add(bundle: Bundle, precision: str, calibration: list[Path]) -> Bundle:
    """Return the bundle with ``precision`` added to its folder; says each step.

    Raises:
        CommandError: if what was given does not fit together, cannot be read or cannot be done.
        BundleError, SequenceError, ClipError, OSError: about the files.
    """
    if precision not in ADDABLE:
        raise CommandError(f"--precision is {' or '.join(ADDABLE)}, got {precision!r}")
    if calibration and precision != "int8":
        raise CommandError("--calibration is for INT8")
    if precision == "int8" and not calibration:
        raise CommandError(
            "INT8 needs --calibration: a clip with boxes, or a training set (docs/quantisation.md)"
        )
    try:
        from siam_tracker_ros.deployment.calibration import CalibrationError
        from siam_tracker_ros.deployment.contract import ExportError
        from siam_tracker_ros.deployment.precisions import add_precision as write
    except ImportError as error:
        raise CommandError(
            f"{error.name} is missing: pip install {error.name} (the robot's tools do without)"
        ) from error
    try:
        clips = [clip for path in calibration for clip in _clips(path)]
        return write(
            bundle,
            precision,
            clips,
            lambda line: console.print(line, highlight=False, markup=False),
        )
    except (ExportError, CalibrationError) as error:
        raise CommandError(str(error)) from error


def _clips(path: Path) -> list[CalibrationClip]:
    """Return one sequence, or objects of a training set."""
    if path.suffix != ".tar":
        return [read_sequence(path)]
    from siam_tracker_ros.training.set_clips import set_clips
    from siam_tracker_ros.training.tar_sets import DataError

    try:
        return [*set_clips(path)]
    except DataError as error:
        raise CommandError(str(error)) from error
