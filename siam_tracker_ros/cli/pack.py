"""``siam-tracker pack``: training sets to pre-cropped shards, and how fast either is read."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress

from siam_tracker_ros.cli.common import CommandError, console, table, write_json

if TYPE_CHECKING:
    from siam_tracker_ros.training.config import TrainConfig
    from siam_tracker_ros.training.tar_sets import ImageSet

WARM_UP = 10
"""Samples that are made before the clock starts."""


def pack(
    sets: Annotated[
        list[str],
        typer.Option(
            "--set", help="NAME=PATH where the name is a layout, else NAME=LAYOUT:PATH; repeat"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the shards; each set gets one in it.")
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="Training configurations that will read them; repeat. Without: defaults"),
    ] = None,
    quality: Annotated[int, typer.Option(min=50, max=100, help="Of the JPEG images.")] = 90,
    shard_mib: Annotated[float, typer.Option(min=0.01, help="Size of a shard, MiB.")] = 512.0,
    detail: Annotated[
        float, typer.Option(min=0.0, help="Stored px for a px of a search crop; 0 keeps all.")
    ] = 1.0,
    every: Annotated[int, typer.Option(min=1, help="Keep every n-th frame of a video.")] = 1,
    holdout_every: Annotated[
        int, typer.Option(min=2, help="As data.holdout_every, for the manifest's counts.")
    ] = 20,
    on_error: Annotated[
        Literal["stop", "skip"], typer.Option(help="At what is wrong in a set.")
    ] = "stop",
    workers: Annotated[int, typer.Option(min=1, help="Processes that cut and compress.")] = 1,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Pack nothing; measure how fast sets are read.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="Of --benchmark, from each set.")] = 200,
) -> None:
    """Cut training sets into shards that training reads many times faster than the originals.

    The same sets and options make the same files; a call that was stopped goes on when it is
    repeated. A configuration reads them with `data.sources: {NAME: shards:OUT/NAME}`.
    """
    from siam_tracker_ros.networks.config import ConfigError
    from siam_tracker_ros.training import shards
    from siam_tracker_ros.training.config import TrainConfig, load_config
    from siam_tracker_ros.training.datasets.opening import open_set
    from siam_tracker_ros.training.tar_sets import DataError

    sources = dict(_named(text) for text in sets)
    try:
        runs = [load_config(path) for path in config or []] or [TrainConfig()]
        opened = {name: open_set(name, source, on_error) for name, source in sources.items()}
        if benchmark:
            figures = [_measure(s, runs[0], samples) for s in opened.values()]
            _show(figures)
            if out is not None:
                write_json(out, figures)
            return
        if out is None:
            raise CommandError("--out names the folder of the shards")
        settings = shards.PackSettings(
            tuple(shards.Region(run.network.crop, run.augmentation) for run in runs),
            quality,
            shard_mib,
            detail,
            every,
            holdout_every,
        )
        for name, image_set in opened.items():
            with Progress(console=console) as bar:
                task = bar.add_task(name, total=None)
                manifest = shards.pack(
                    image_set,
                    out / name,
                    settings,
                    sources[name],
                    on_error,
                    workers,
                    lambda done, total, bar=bar, task=task: bar.update(  # type: ignore[misc]
                        task, completed=done, total=total
                    ),
                )
            _say(out / name, manifest)
    except (ConfigError, DataError) as error:
        raise CommandError(str(error)) from error


def _named(text: str) -> tuple[str, str]:
    name, separator, source = text.partition("=")
    if not separator or not name or not source or "/" in name:
        raise typer.BadParameter(f"--set is NAME=PATH or NAME=LAYOUT:PATH, got {text!r}")
    return name, source


def _say(folder: Path, manifest: dict[str, object]) -> None:
    shards = manifest["shards"]
    assert isinstance(shards, list)
    size = sum(shard["bytes"] for shard in shards) / 2**20
    images = sum(shard["images"] for shard in shards)
    console.print(
        f"{folder}: {images} images in {len(shards)} shards, {size:.1f} MiB; left out: "
        f"{json.dumps(manifest['skipped'])}",
        highlight=False,
        soft_wrap=True,
    )


def _measure(image_set: ImageSet, config: TrainConfig, samples: int) -> dict[str, object]:
    """Make samples of one set, and count what a core does in a second of its own time."""
    import cv2

    from siam_tracker_ros.training.samples import SampleSource, split_sets
    from siam_tracker_ros.training.shards import Region, check_regions

    cv2.setNumThreads(0)
    check_regions([image_set], [Region(config.network.crop, config.augmentation)])
    source = SampleSource(
        split_sets([image_set], config.data, False),
        config.network.crop,
        config.network.crop.search / 2,
        dataclasses.replace(config.data, cutouts=(), cache_gib=0.0),
        dataclasses.replace(config.sampling, synthetic=0.0),
        config.augmentation,
        config.run.seed,
    )
    for index in range(WARM_UP):
        source(index)
    loaded = source.views.load.decoded
    wall, busy = time.perf_counter(), time.process_time()
    for index in range(WARM_UP, WARM_UP + samples):
        source(index)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    loaded = source.views.load.decoded - loaded
    refs = source.views.images
    begun = time.process_time()
    for index in range(0, len(refs), max(1, len(refs) // samples)):
        source.views.load(refs[index])
    read = len(range(0, len(refs), max(1, len(refs) // samples)))
    return {
        "set": image_set.name,
        "images_per_s": read / (time.process_time() - begun),
        "samples_per_s": samples / busy,
        "images_per_sample": loaded / samples,
        "samples": samples,
        "core_share": busy / wall,
    }


def _show(figures: list[dict[str, object]]) -> None:
    columns = ["images_per_s", "samples_per_s", "images_per_sample", "core_share"]
    rows = [[str(f["set"]), *(f"{float(str(f[c])):.2f}" for c in columns)] for f in figures]
    titles = ["set", "images/s/core", "samples/s/core", "images/sample", "share of a core"]
    console.print(table("Reading, by a core's own time", titles, rows))
