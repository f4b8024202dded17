"""``siam-tracker certify``: does every back end here do what the bundle's FP32 graphs do?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import CommandError, console, table, write_json
from siam_tracker_ros.evaluation import read_sequence, synthetic_sequence


def certify(
    model: Annotated[str, typer.Option(help="A bundle's name or path.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The network it was exported from: torch is measured too (needs torch)."),
    ] = None,
    clip: Annotated[
        list[Path] | None,
        typer.Option(help="An annotated clip (NAME.mp4 with NAME.txt, or an OTB folder)."),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=2, help="Without --clip: length of the rendered clip.")
    ] = 120,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where engines are kept; without: the user's cache folder.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write there, not into the bundle's parity.json.")
    ] = None,
) -> None:
    """Compare ONNX Runtime and TensorRT in every precision of a model with its FP32 graphs.

    Outputs on the same crops, and boxes over whole sequences; TensorRT where there is a GPU. The
    figures go into the bundle's parity.json; what is there and cannot be measured here stays. Exits
    with 1 if a trajectory leaves the reference's further than noise takes the reference itself.
    """
    from siam_tracker_ros.deployment.certificate import (
        certify as measure,
    )
    from siam_tracker_ros.deployment.certificate import (
        entries,
        objections,
        read_parity,
        write_parity,
    )

    bundle = load_bundle(model)
    clips = [read_sequence(path) for path in clip or ()] or [synthetic_sequence(640, 360, frames)]
    known = read_parity(bundle)
    found = []
    if checkpoint is not None:
        from siam_tracker_ros.deployment.parity import failures, measure_parity
        from siam_tracker_ros.networks.checkpoint import CheckpointError, load_network

        console.print("torch against ONNX Runtime")
        try:
            network = load_network(checkpoint)
        except CheckpointError as error:
            raise CommandError(str(error)) from error
        measured = measure_parity(network, bundle, clips)
        found += failures(measured)
        known = {**measured, **{k: known[k] for k in ("tensorrt", "tensorrt_reason") if k in known}}

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    parity = measure(bundle, clips, known=known, cache_dir=cache_dir, say=say)
    rows = []
    for label, entry in entries(parity):
        if "failed" in entry:
            rows.append([label, "failed", "", "", "", ""])
        for outputs, walk in zip(
            entry.get("outputs", ()), entry.get("trajectories", ()), strict=True
        ):
            divergence = walk["first_divergence"]
            rows.append(
                [
                    f"{label}, {walk['clip']}",
                    f"{outputs['median_difference']['result.box']:.2g}",
                    f"{outputs['median_difference']['result.score']:.2g}",
                    f"{walk['median_iou']:.4f}",
                    f"{walk['min_iou']:.4f}",
                    "none" if divergence is None else str(divergence),
                ]
            )
    if rows:
        title = f"{bundle.name} against {parity['certificate']['reference']}"
        columns = ["", "box px", "score", "median IoU", "least", "diverges"]
        console.print(table(title, columns, rows))
    if parity.get("tensorrt") is None:
        say(f"TensorRT: {parity['tensorrt_reason']}")
    if json_file is None:
        json_file = write_parity(bundle, parity)
    else:
        write_json(json_file, parity)
    say(f"Written to {json_file}")
    found += objections(parity)
    for line in found:
        typer.echo(f"parity: {line}", err=True)
    if found:
        raise typer.Exit(1)
