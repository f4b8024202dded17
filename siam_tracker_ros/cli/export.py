"""``siam-tracker export``: a trained network in, a model bundle out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from siam_tracker_ros.cli.add_precision import add

if TYPE_CHECKING:
    from siam_tracker_ros.deployment.model_card import ModelCard
    from siam_tracker_ros.evaluation.sequences import Sequence
    from siam_tracker_ros.networks.tracker_network import TrackerNetwork


def export(
    name: Annotated[str, typer.Option(help="The bundle's name, e.g. siam_stm_mobilenetv2")],
    out: Annotated[Path, typer.Option(help="Folder that gets the bundle's folder")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="The trained network: network.safetensors of a run")
    ] = None,
    untrained: Annotated[
        bool, typer.Option(help="Export an untrained network of --config (to try out the rest)")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="With --untrained: a training configuration")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="With --untrained: change one key of --config")
    ] = None,
    tuning: Annotated[
        list[str] | None, typer.Option(help="A default of the bundle, e.g. --tuning window=0.2")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="YAML with more for the model card: metrics, speed, limits")
    ] = None,
    clip: Annotated[
        list[Path] | None,
        typer.Option(help="Sequence to measure parity on (NAME.mp4 with NAME.txt, or OTB folder)"),
    ] = None,
    half: Annotated[bool, typer.Option(help="Also write FP16 twins of the graphs")] = True,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write INT8 twins; needs --calibration")
    ] = False,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="With --int8: clips or training sets (.tar) to measure ranges on"),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch", min=1)] = 1,
) -> None:
    """Write OUT/NAME: graphs, bundle.yaml, parity.json, model card and licence.

    Exits with 1 if the exported graphs do not do what the network does.
    """
    import torch

    from siam_tracker_ros.bundle import BundleError
    from siam_tracker_ros.deployment.contract import ExportError
    from siam_tracker_ros.deployment.export import export_bundle
    from siam_tracker_ros.deployment.model_card import CardError
    from siam_tracker_ros.deployment.parity import failures
    from siam_tracker_ros.deployment.run_folder import read_presence
    from siam_tracker_ros.evaluation.frames import ClipError
    from siam_tracker_ros.evaluation.sequences import SequenceError
    from siam_tracker_ros.networks.checkpoint import CheckpointError
    from siam_tracker_ros.networks.config import ConfigError

    console = Console(highlight=False, soft_wrap=True)
    complain = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    torch.set_num_threads(threads)
    try:
        values = _tuning(tuning or [])
        if int8 == (not calibration):
            raise ConfigError("--int8 and --calibration go together")
        if (checkpoint is None) == (not untrained):
            raise ConfigError("give either --checkpoint, or --untrained with --config")
        network, provenance, model_card = (
            _untrained(config, override or [], card)
            if checkpoint is None
            else _trained(checkpoint, card)
        )
        bundle, parity = export_bundle(
            network,
            out / name,
            name=name,
            provenance={"command": _command(), "revision": _revision(), **provenance},
            card=model_card,
            tuning=values,
            presence=None if checkpoint is None else read_presence(checkpoint),
            clips=_clips(clip or []),
            half=half,
            say=lambda line: console.print(line),
        )
    except (
        ConfigError,
        CheckpointError,
        CardError,
        ClipError,
        SequenceError,
        ExportError,
        BundleError,
    ) as error:
        complain.print(f"siam-tracker export: {error}")
        raise typer.Exit(2) from error
    if int8:
        bundle = add(bundle, "int8", calibration or [])
    size = sum(entry.bytes for entry in bundle.files.values())
    console.print(f"bundle: {bundle.path} ({size / 1e6:.1f} MB of graphs)")
    for entry in parity["onnxruntime"]["trajectories"]:
        console.print(
            f"torch against ONNX Runtime on {entry['clip']}: median IoU {entry['median_iou']:.4f}, "
            f"least {entry['min_iou']:.4f} over {entry['frames']} frames"
        )
    for entry in parity["onnxruntime"]["fp16_trajectories"]:
        console.print(
            f"FP32 against FP16 on {entry['clip']}: median IoU {entry['median_iou']:.4f}, "
            f"least {entry['min_iou']:.4f}"
        )
    worse = failures(parity, trajectories=not untrained)
    for line in worse:
        complain.print(f"parity: {line}")
    if worse:
        raise typer.Exit(1)


def _trained(
    checkpoint: Path, card: Path | None
) -> tuple[TrackerNetwork, dict[str, Any], ModelCard]:
    from siam_tracker_ros.deployment.run_folder import read_card, read_provenance
    from siam_tracker_ros.networks.checkpoint import load_network

    return load_network(checkpoint), read_provenance(checkpoint), read_card(checkpoint, card)


def _untrained(
    config: Path | None, override: list[str], card: Path | None
) -> tuple[TrackerNetwork, dict[str, Any], ModelCard]:
    from dataclasses import asdict

    import torch

    from siam_tracker_ros.deployment.model_card import ModelCard
    from siam_tracker_ros.deployment.run_folder import pretrained_data, read_yaml
    from siam_tracker_ros.networks.build import make_network
    from siam_tracker_ros.networks.config import ConfigError
    from siam_tracker_ros.training.config import load_config
    from siam_tracker_ros.training.run import backbone_weights

    if config is None:
        raise ConfigError("--untrained needs --config: which network?")
    values = load_config(config, override)
    torch.manual_seed(values.run.seed)
    network = make_network(values.network, backbone_weights(values)).eval()
    model_card = ModelCard(
        summary="An untrained network: it runs, and does not track. For trying out everything around it.",
        data=pretrained_data(asdict(values)),
    )
    if card is not None:
        model_card = model_card.with_changes(read_yaml(card))
    return network, {"config": asdict(values)}, model_card


def _tuning(pairs: list[str]) -> dict[str, float]:
    from siam_tracker_ros.networks.config import ConfigError

    values = {}
    for pair in pairs:
        key, sep, text = pair.partition("=")
        try:
            value = float(text)
        except ValueError:
            sep = ""
        if not sep:
            raise ConfigError(f"--tuning {pair}: name=number is wanted")
        values[key] = value
    return values


def _clips(paths: list[Path]) -> list[Sequence]:
    from siam_tracker_ros.evaluation.sequences import read_sequence

    return [read_sequence(path) for path in paths]


def _command() -> str:
    """Return the command line; of absolute paths only the last part, since others have other machines."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return shlex.join(["siam-tracker", *words])


def _revision() -> str:
    """Return the package's version and, in a repository, its commit."""
    import subprocess

    from siam_tracker_ros import __version__

    here = Path(__file__).parent
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = answer.stdout.strip() if answer.returncode == 0 else ""
    return f"{__version__} {commit}".strip()
