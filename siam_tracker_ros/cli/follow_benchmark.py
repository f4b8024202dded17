"""``siam-tracker follow-benchmark``: a simulated robot follows a target over a real ROS 2 graph."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from siam_tracker_ros.bundle import load_bundle
from siam_tracker_ros.cli.common import CommandError, console, table, write_json
from siam_tracker_ros.cli.demo import model_argument
from siam_tracker_ros.cli.follow_report import (
    plot_run,
    read_run,
    run_figures,
    shortcomings,
    write_video,
)
from siam_tracker_ros.cli.ros_processes import (
    Process,
    own_domain,
    own_namespace,
    require_ros,
    transport_profile,
)
from siam_tracker_ros.evaluation.bundled import DEFAULT_MODEL
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.nodes.follow_scene import HIDINGS, FollowScene

DISTANCE = 2.0
"""Metres that the robot keeps."""

MAX_SPEED = 0.8
RESTS = ",".join(map(str, HIDINGS))
START_SECONDS = 120.0
"""What the graph may take to come up, on top of the duration."""


def follow_benchmark(
    duration: Annotated[float, typer.Option(min=10, help="Seconds of the target's walk.")] = 600.0,
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("out/follow"),
    model: Annotated[str, typer.Option(help="A bundle's name or path.")] = DEFAULT_MODEL,
    methods: Annotated[
        str, typer.Option(help="Where the range comes from: depth, height or ground.")
    ] = "depth",
    rate: Annotated[float, typer.Option(min=5, max=60, help="Camera images a second.")] = 15.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the walk and the patterns.")] = 0,
    hiding: Annotated[bool, typer.Option(help="Let a wall pass before the target.")] = True,
    rests: Annotated[
        str, typer.Option(help="Seconds that the wall rests before the target, in turn.")
    ] = RESTS,
    search_time: Annotated[
        float, typer.Option(min=0, max=60, help="The controller's search_time, s; 0: no looking.")
    ] = 0.0,
    video: Annotated[bool, typer.Option(help="Write the video.")] = True,
) -> None:
    """Follow a moving target with a simulated robot, and say how well it went.

    One process renders a camera on a robot and drives it as cmd_vel says; follow_me.launch.py runs
    tracker_node, target_localizer_node and follow_controller_node. A wall hides the target every 25
    seconds. Writes figures.json, follow.png, follow.mp4 and run.jsonl; exit status 1 says that a bound
    is broken: those of distance and bearing, of the time to stop when the target is hidden, of the time
    to go on when it is seen again, and no driving backwards.
    """
    bundle = load_bundle(model)
    try:
        scene = FollowScene(
            duration, hiding=hiding, seed=seed, rests=[float(rest) for rest in rests.split(",")]
        )
    except ValueError as error:
        raise CommandError(f"--rests {rests}: {error}") from None
    ros2 = require_ros()
    shutil.rmtree(out / "run", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    console.print(f"{bundle.name}, range from {methods}, {duration:g} s; ROS 2", highlight=False)
    simulation = {
        "duration": float(duration),
        "rate": float(rate),
        "seed": seed,
        "hiding": str(hiding).lower(),
        "rests": f"[{','.join(f'{rest:.3f}' for rest in scene.rests)}]",
    }
    run_graph(ros2, out, model_argument(model), methods, simulation, search_time)
    run = read_run(out / "run" / "run.jsonl")
    figures = run_figures(run, DISTANCE, MAX_SPEED)
    problems = shortcomings(figures)
    figures |= {
        "problems": problems,
        "model": bundle.name,
        "model_fingerprint": bundle.fingerprint,
        "methods": methods,
        "duration_s": duration,
        "rate_hz": rate,
        "seed": seed,
        "rests_s": list(scene.rests),
        "search_time_s": search_time,
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
    }
    write_json(out / "figures.json", figures)
    plot_run(run, out / "follow.png", DISTANCE)
    if video:
        write_video(run, out / "follow.mp4", scene, DISTANCE)
    show(figures)
    console.print(f"Written to {out}", highlight=False)
    for problem in problems:
        typer.echo(f"siam-tracker follow-benchmark: BAD: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


def run_graph(
    ros2: str,
    out: Path,
    model: str,
    methods: str,
    simulation: dict[str, Any],
    search_time: float,
) -> None:
    """Run tracker, localizer, controller and simulator until the simulator ends.

    Raises:
        CommandError: if something in the graph fails; the message ends with what it said last.
    """
    namespace = own_namespace()
    launch = [ros2, "launch", "siam_tracker_ros", "follow_me.launch.py"]
    launch += [f"model:={model}", f"namespace:={namespace}", f"methods:={methods}"]
    launch += [f"distance:={DISTANCE}", f"max_speed:={MAX_SPEED}", "output_frame:=odom"]
    launch += ["target_height:=1.0"]
    parameters = out / "follow_me.yaml"
    parameters.write_text(f"{PARAMETERS}    search_time: {search_time:.3f}\n", encoding="utf-8")
    launch.append(f"follow_params_file:={parameters.absolute()}")
    simulator = [ros2, "run", "siam_tracker_ros", "follow_simulator_node", "--ros-args"]
    simulator += ["-r", f"__ns:=/{namespace}", "-r", "controller_status:=follow_controller/status"]
    for name, value in {
        **simulation,
        "distance": DISTANCE,
        "depth": str("depth" in methods).lower(),
        "out": (out / "run").absolute(),
        "start_timeout": START_SECONDS,
    }.items():
        simulator += ["-p", f"{name}:={value}"]
    with own_domain() as domain, ExitStack() as stack:
        environment = {"ROS_DOMAIN_ID": domain, **transport_profile()}
        stack.enter_context(console.status(f"running in ROS domain {domain}, /{namespace} ..."))
        following = stack.enter_context(Process(launch, out / "launch.log", environment))
        robot = stack.enter_context(Process(simulator, out / "simulator.log", environment))
        until = time.monotonic() + simulation["duration"] + START_SECONDS + 30
        while robot.status is None and time.monotonic() < until:
            time.sleep(0.2)
            if following.status is not None:
                raise CommandError(f"the chain ended early; it said last:\n{following.tail()}")
        if robot.status != 0:
            said = f"{robot.tail(6)}\n{following.tail()}"
            raise CommandError(f"the simulator did not come to its end; it said last:\n{said}")


PARAMETERS = """# Written by siam-tracker follow-benchmark.
/**:
  ros__parameters:
    ground_frame: base_link
    depth_max: 10.0
    deadman: bool
"""


def show(figures: dict[str, Any]) -> None:
    """Print the figures, with their bounds."""

    def line(name: str, key: str, unit: str) -> list[str]:
        value, bound = figures[key], figures["bounds"].get(key)
        return [
            f"{name}, {unit}" if unit else name,
            "not known" if value is None else f"{value:.3f}",
            "" if bound is None else f"{bound:g}",
        ]

    rows = [
        line("distance error, median", "distance_error_median", "m"),
        line("distance error, p95", "distance_error_p95", "m"),
        line("bearing error, median", "bearing_error_median", "rad"),
        line("bearing error, p95", "bearing_error_p95", "rad"),
        line("smallest distance", "distance_min", "m"),
        line("times hidden", "hidings", ""),
        line("hidden until commanded to stand, longest", "stop_s_max", "s"),
        line("seen again until following, longest", "resume_s_max", "s"),
        line("stopped while the target was seen", "lost_while_seen_s", "s"),
        line("share of time outside the picture", "outside_share", ""),
        line("speed commanded, largest", "speed_max", "m/s"),
        line("speed commanded, smallest", "speed_min", "m/s"),
    ]
    title = f"{figures['model']}, {figures['duration_s']:g} s"
    console.print(table(title, ["", "value", "bound"], rows))
