"""``siam-tracker costs``: parameters and multiply-adds of a network, part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siam_tracker_ros.cli.common import CommandError, console, table, write_json


def costs(
    config: Annotated[
        Path | None, typer.Option(help="A training configuration, config/training/*.yaml")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A trained network")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON")] = None,
) -> None:
    """Count what a network computes: once a track for the template, and for every frame.

    Of a training configuration also: how many samples its run has, and the multiply-adds of their
    forward passes. A step takes about three times those of what trains, once those of what is frozen.
    """
    from siam_tracker_ros.deployment.costs import measure_costs
    from siam_tracker_ros.networks.build import make_network
    from siam_tracker_ros.networks.checkpoint import CheckpointError, read_config
    from siam_tracker_ros.networks.config import ConfigError
    from siam_tracker_ros.training.config import load_config
    from siam_tracker_ros.training.objectives import make_objective

    if (config is None) == (checkpoint is None):
        raise CommandError("give either --config or --checkpoint")
    try:
        plan = load_config(config) if config is not None else None
        network = make_network(read_config(checkpoint) if checkpoint else plan.network)
    except (CheckpointError, ConfigError) as error:
        raise CommandError(str(error)) from error
    measured = measure_costs(network)
    rows = [
        [
            part.name,
            f"{part.parameters / 1e6:.3f}",
            f"{part.template_macs / 1e9:.3f}",
            f"{part.macs / 1e9:.3f}",
        ]
        for part in measured.parts
    ]
    total = (measured.parameters / 1e6, measured.template_macs / 1e9, measured.macs / 1e9)
    rows.append(["total", *(f"{value:.3f}" for value in total)])
    columns = ["part", "parameters M", "GMAC once a track", "GMAC a frame"]
    console.print(table(str(config or checkpoint), columns, rows))
    found: dict[str, dict[str, int]] = {
        part.name: {
            "parameters": part.parameters,
            "template_macs": part.template_macs,
            "macs": part.macs,
        }
        for part in measured.parts
    }
    if plan is not None:
        shape = make_objective(plan.loss).samples
        samples = plan.run.epochs * plan.run.samples_per_epoch
        forward = samples * (
            shape.templates * measured.template_macs + shape.searches * measured.macs
        )
        found["training"] = {"samples": samples, "forward_macs": forward}
        console.print(
            f"training: {samples:,} samples of {shape.templates} + {shape.searches} crops, "
            f"{forward:.2g} multiply-adds forward",
            highlight=False,
        )
    if out is not None:
        write_json(out, found)
