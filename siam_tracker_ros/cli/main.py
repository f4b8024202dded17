"""``siam-tracker``: finds the verb and runs it.

A verb is a function with typer's annotations, imported only when it is called: ``siam-tracker
track`` on a robot never looks for torch.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

from siam_tracker_ros import __version__


@dataclass(frozen=True)
class Verb:
    """Where a verb's function is, and what the list of verbs says about it."""

    function: str
    summary: str

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module, name = self.function.split(":")
        return getattr(importlib.import_module(module), name)


VERBS: dict[str, Verb] = {
    "demo": Verb(
        "siam_tracker_ros.cli.demo:demo",
        "Follow an object in a clip over a real ROS 2 graph; video, plot and figures.",
    ),
    "track": Verb(
        "siam_tracker_ros.cli.track:track",
        "Follow one object through a clip, without ROS; boxes, plot and video.",
    ),
    "evaluate": Verb(
        "siam_tracker_ros.cli.evaluate:evaluate",
        "Score models and published peers on annotated sequences.",
    ),
    "evaluate-redetection": Verb(
        "siam_tracker_ros.cli.evaluate_redetection:evaluate_redetection",
        "Hide the target and measure how soon its loss and its return are told.",
    ),
    "vot-trax": Verb(
        "siam_tracker_ros.cli.vot_trax:vot_trax",
        "Be a tracker of the VOT toolkit, over its TraX protocol.",
    ),
    "compare": Verb(
        "siam_tracker_ros.cli.compare:compare",
        "Compare models on the same sequences, with the error of each difference.",
    ),
    "benchmark": Verb(
        "siam_tracker_ros.cli.benchmark:benchmark",
        "Measure how fast a model is here, alone or through ROS 2.",
    ),
    "select": Verb(
        "siam_tracker_ros.cli.select:select",
        "Tell a running tracker_node what to follow.",
    ),
    "follow-benchmark": Verb(
        "siam_tracker_ros.cli.follow_benchmark:follow_benchmark",
        "Follow a target with a simulated robot over a real ROS 2 graph; errors, plot, video.",
    ),
    "train": Verb(
        "siam_tracker_ros.cli.train:train",
        "Train a tracker from a configuration.",
    ),
    "pack": Verb(
        "siam_tracker_ros.cli.pack:pack",
        "Cut training sets into shards that training reads fast, or measure how fast.",
    ),
    "export": Verb(
        "siam_tracker_ros.cli.export:export",
        "Make a model bundle from a checkpoint.",
    ),
    "add-precision": Verb(
        "siam_tracker_ros.cli.add_precision:add_precision",
        "Add FP16 or INT8 graphs to a model, for TensorRT.",
    ),
    "calibrate": Verb(
        "siam_tracker_ros.cli.calibrate:calibrate",
        "Make a bundle's score a probability: fit its presence model and thresholds.",
    ),
    "build": Verb(
        "siam_tracker_ros.cli.build:build",
        "Build a model's TensorRT engines on this machine, ahead of the node's first start.",
    ),
    "certify": Verb(
        "siam_tracker_ros.cli.certify:certify",
        "Compare every back end and precision here with a model's FP32 graphs.",
    ),
    "gpu-prepare": Verb(
        "siam_tracker_ros.cli.gpu_prepare:gpu_prepare",
        "Make the folder that a run on a GPU machine needs.",
    ),
    "gpu-benchmark": Verb(
        "siam_tracker_ros.cli.gpu_benchmark:gpu_benchmark",
        "Engines, parity, times and ceilings on this machine's GPU.",
    ),
    "study": Verb(
        "siam_tracker_ros.cli.study:study",
        "Train configurations under one budget, with several seeds, and compare them.",
    ),
    "costs": Verb(
        "siam_tracker_ros.cli.costs:costs",
        "Count a network's parameters and multiply-adds, part by part.",
    ),
}

LISTING = "siam_tracker_ros.listing"


class VerbGroup(TyperGroup):
    """Typer's group, with the verbs of ``VERBS``; errors meant for people lose their traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order of ``VERBS``."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a verb; while the verbs are only listed, a stand-in with its summary."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        function = _nothing if ctx.meta.get(LISTING) else verb.load()
        app = typer.Typer(add_completion=False)
        app.command(name=cmd_name, short_help=verb.summary)(function)
        return typer.main.get_command(app)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """List the verbs without importing them."""
        ctx.meta[LISTING] = True
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; what is wrong with its input is said in one line, exit status 2."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from siam_tracker_ros.cli.common import EXPECTED

            if os.environ.get("SIAM_TRACKER_TRACEBACK") or not isinstance(error, EXPECTED):
                raise
            typer.echo(f"siam-tracker {ctx.invoked_subcommand}: {error}", err=True)
            raise typer.Exit(2) from error


def _nothing() -> None:
    """Stand in for a verb that is only listed."""


app = typer.Typer(
    cls=VerbGroup,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Follows one selected object through video: track, evaluate, measure, train, export.",
    epilog="SIAM_TRACKER_TRACEBACK=1 shows where an error came from.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"siam_tracker_ros {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True),
) -> None:
    """Run one of the verbs."""


def main() -> None:
    """Entry point ``siam-tracker``."""
    app(prog_name="siam-tracker")


if __name__ == "__main__":
    main()
