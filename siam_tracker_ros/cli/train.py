"""``siam-tracker train``: one configuration in, a trained network out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def train(
    config: Annotated[
        Path, typer.Option(help="YAML file, e.g. config/training/siam_stm_mobilenetv2.yaml")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run: checkpoints, logs, manifest, network")
    ],
    resume: Annotated[bool, typer.Option(help="Go on from the run's last checkpoint")] = False,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Change one key, e.g. --set run.epochs=2")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar")] = True,
) -> None:
    """Train a tracker; ends with OUT/network.safetensors, which `siam-tracker export` turns into a
    bundle.
    """
    from siam_tracker_ros.networks.config import ConfigError
    from siam_tracker_ros.training.checkpoints import DiskError
    from siam_tracker_ros.training.config import load_config
    from siam_tracker_ros.training.run import train as run
    from siam_tracker_ros.training.tar_sets import DataError

    console = Console()
    try:
        path = run(load_config(config, override), out, resume=resume, progress=progress)
    except (ConfigError, DataError, DiskError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(f"network: {path}", highlight=False, soft_wrap=True)
