"""``siam-tracker gpu-prepare``: everything that a GPU run needs, made where there is no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import CommandError, console
from siam_tracker_ros.evaluation import read_sequence, synthetic_sequence

if TYPE_CHECKING:
    from siam_tracker_ros.bundle import Bundle

MODELS = (
    "siam_stm_mobilenetv2",
    "im_siam_mobilenetv2",
    "stm_track_mobilenetv2",
    "spm_tracker_mobilenetv2",
)
CONFIGS = ("siam_stm_resnet50", "im_siam_resnet50", "stm_track_inception_v3", "spm_tracker_alexnet")

PERIOD = 4099
"""Weights of an untrained network repeat after so many; a prime, so that no two channels agree."""


def gpu_prepare(
    out: Annotated[Path, typer.Option(help="The folder that is made.")] = Path("out/gpu/prepared"),
    model: Annotated[
        list[str] | None,
        typer.Option(help="A trained bundle; without: the four that come with the package."),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="A network to be exported untrained; without: the papers' four."),
    ] = None,
    clip: Annotated[
        list[Path] | None,
        typer.Option(help="An annotated clip to follow; without: a rendered one."),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="At most so many of each clip.")] = 120,
    product_side: Annotated[
        int, typer.Option(min=16, help="Of the matrices whose product is the GPU's ceiling.")
    ] = 8192,
    trained_only: Annotated[
        bool, typer.Option("--trained-only", help="Leave the untrained networks out.")
    ] = False,
) -> None:
    """Write bundles with FP16 twins, the reference's answers, clips and ceilings into one folder.

    It then goes to the GPU machine (docs/gpu.md), where nothing of torch or onnx is needed.
    """
    from siam_tracker_ros.deployment.contract import ExportError
    from siam_tracker_ros.deployment.gpu_prepare import Subject, prepare
    from siam_tracker_ros.networks.config import ConfigError

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    clips = [read_sequence(path) for path in clip or ()] or [synthetic_sequence(640, 360, frames)]
    subjects = [Subject(load_bundle(name), light=True, trained=True) for name in model or MODELS]
    root = Path(__file__).resolve().parents[2] / "config" / "training"
    files = list(config or (root / f"{name}.yaml" for name in CONFIGS))
    try:
        for file in () if trained_only else files:
            say(f"{file.stem}: exporting it untrained")
            subjects.append(Subject(_untrained(file, out / "untrained"), False, False))
        prepare(out, subjects, clips, frames=frames, product_side=product_side, say=say)
    except (ConfigError, ExportError) as error:
        raise CommandError(str(error)) from error
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"{out}: {size / 2**20:.0f} MiB")


def _untrained(file: Path, folder: Path) -> Bundle:
    """Export the untrained network of a training configuration.

    What it says is noise; what it costs is what the trained one costs. Its random weights repeat
    every few thousand: hundreds of megabytes then pack to little, and travel.
    """
    import dataclasses

    import torch

    from siam_tracker_ros.deployment.export import export_bundle
    from siam_tracker_ros.networks.build import make_network
    from siam_tracker_ros.training.config import load_config

    values = load_config(file)
    torch.manual_seed(values.run.seed)
    network = make_network(values.network)
    with torch.no_grad():
        for weights in network.parameters():
            flat = weights.view(-1)
            flat.copy_(flat[:PERIOD].repeat(-(-flat.numel() // PERIOD))[: flat.numel()])
    bundle, _ = export_bundle(
        network,
        folder / file.stem,
        name=file.stem,
        provenance={"config": dataclasses.asdict(values)},
        clips=[synthetic_sequence(320, 240, 2)],
    )
    return bundle
