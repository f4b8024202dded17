"""What a run of the follow-me simulation was like: figures, plot and video from its ``run.jsonl``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.cli.common import CommandError
from siam_tracker_ros.nodes.follow_scene import FollowScene, Place

SETTLING = 5.0
"""Seconds at the start, and after each time that the target was hidden, that errors do not count."""

HIDDEN, SEEN = 0.1, 0.9
"""Shares of the target in view below and above which it counts as hidden and as seen."""

BOUNDS: dict[str, float] = {
    "distance_error_median": 0.20,
    "distance_error_p95": 0.50,
    "bearing_error_median": 0.08,
    "bearing_error_p95": 0.25,
    "stop_s_max": 2.0,
    "resume_s_max": 5.0,
}
"""What a run must keep: metres, radians, seconds."""

LEAST_DISTANCE = 1.0
LEAST_FOLLOWED = 0.95
"""Share of the time with the target in view in which the robot must follow."""

MOST_OUTSIDE = 0.05
"""Share of the run that the target may be outside the picture, which no wall explains."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FollowRun:
    """A run; all arrays have one entry an image, but for the commands'.

    Attributes:
        t: seconds of the walk.
        robot: ``[n, 3]``, x, y, yaw in the world.
        target: ``[n, 2]``.
        visible: share of the target in view.
        outside: whether the target is outside the picture, wall or no wall.
        following: whether the controller said that it follows.
        commands: ``[m, 3]``, t, speed, turn rate.
        detections: by stamp, the box (cx, cy, w, h) or None.
        stamps: of the images.
        poses: number of poses.
        states: (t, text) of what the controller said.
    """

    t: Array
    robot: Array
    target: Array
    visible: Array
    outside: npt.NDArray[np.bool_]
    following: npt.NDArray[np.bool_]
    commands: Array
    detections: dict[int, list[float] | None]
    stamps: list[int]
    poses: int
    states: list[tuple[float, str]]

    @property
    def distance(self) -> Array:
        """Metres from robot to target."""
        return np.asarray(np.hypot(*(self.target - self.robot[:, :2]).T))

    @property
    def bearing(self) -> Array:
        """Radians of the target to the robot's left."""
        dx, dy = (self.target - self.robot[:, :2]).T
        angle = np.arctan2(dy, dx) - self.robot[:, 2]
        return np.asarray((angle + math.pi) % (2 * math.pi) - math.pi)

    def hidings(self) -> list[tuple[int, int]]:
        """Return (first image hidden, first image seen again) of each time; the last may be open."""
        found, since = [], None
        for i, visible in enumerate(self.visible):
            if since is None and visible < HIDDEN:
                since = i
            elif since is not None and visible > SEEN:
                found.append((since, i))
                since = None
        if since is not None:
            found.append((since, len(self.visible)))
        return found


def read_run(file: Path) -> FollowRun:
    """Read a run.

    Raises:
        CommandError: if there is nothing in it.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    images = [row for row in rows if row["kind"] == "image"]
    commands = [
        (row["t"], row["speed"], row["turn_rate"]) for row in rows if row["kind"] == "command"
    ]
    if not images or not commands:
        raise CommandError(f"{file}: {len(images)} images and {len(commands)} commands: no run")
    return FollowRun(
        t=np.array([row["t"] for row in images]),
        robot=np.array([row["robot"] for row in images]),
        target=np.array([row["target"] for row in images]),
        visible=np.array([row["visible"] for row in images]),
        outside=np.array([row["box"] is None for row in images]),
        following=np.array([row["controller"].startswith("following") for row in images]),
        commands=np.array(commands),
        detections={row["stamp"]: row["box"] for row in rows if row["kind"] == "detection"},
        stamps=[row["stamp"] for row in images],
        poses=sum(row["kind"] == "pose" for row in rows),
        states=[(row["t"], row["state"]) for row in rows if row["kind"] == "controller"],
    )


def run_figures(run: FollowRun, distance: float, max_speed: float) -> dict[str, Any]:
    """Return a run's figures; errors are of the times in view, :data:`SETTLING` after each start."""
    hidings = run.hidings()
    counts = (run.visible > SEEN) & (run.t > SETTLING)
    for first, last in hidings:
        until = run.t[last] + SETTLING if last < len(run.t) else math.inf
        counts &= ~((run.t >= run.t[first]) & (run.t < until))
    if not counts.any():
        raise CommandError("the run is too short: no error counts")
    error, bearing = np.abs(run.distance - distance), np.abs(run.bearing)
    stops, resumes = [], []
    for first, last in hidings:
        if last == len(run.t):
            continue
        again = _following_again(run, last)
        if again is None and run.t[-1] - run.t[last] < BOUNDS["resume_s_max"]:
            continue  # the run ends before it can be told
        stops.append(_first_standing(run, run.t[first], run.t[last]))
        resumes.append(again)
    period = float(np.median(np.diff(run.t))) if len(run.t) > 1 else 0.0
    stood = counts & ~run.following
    speed, t = run.commands[:, 1], run.commands[:, 0]
    # The rates are of commands at least 40 ms apart: nearer ones were held up and came together.
    apart = np.diff(t) > 0.04
    rates = np.diff(speed)[apart] / np.diff(t)[apart]
    known = [s for s in stops if s is not None]
    return {
        "distance_error_median": float(np.median(error[counts])),
        "distance_error_p95": float(np.percentile(error[counts], 95)),
        "bearing_error_median": float(np.median(bearing[counts])),
        "bearing_error_p95": float(np.percentile(bearing[counts], 95)),
        "whole_run": {
            "distance_error_median": float(np.median(error)),
            "distance_error_p95": float(np.percentile(error, 95)),
            "distance_error_max": float(error.max()),
            "bearing_error_median": float(np.median(bearing)),
            "bearing_error_p95": float(np.percentile(bearing, 95)),
            "bearing_error_max": float(bearing.max()),
        },
        "distance_min": float(run.distance.min()),
        "hidings": len(stops),
        "stops": stops,
        "stops_not_needed": sum(s is None for s in stops),
        "stop_s_max": max(known, default=None),
        "resumes": resumes,
        "resume_s_max": max((r for r in resumes if r is not None), default=None),
        "never_resumed": sum(r is None for r in resumes),
        "counted_s": float(counts.sum() * period),
        "lost_while_seen_s": float(stood.sum() * period),
        "followed_share": float(1 - stood.sum() / counts.sum()),
        "outside_share": float(run.outside.mean()),
        "hidden_s": float((run.visible < HIDDEN).sum() * period),
        "speed_max": float(speed.max()),
        "speed_min": float(speed.min()),
        "max_speed": max_speed,
        "acceleration_p99": float(np.percentile(np.abs(rates), 99)) if rates.size else None,
        "travelled_m": float(np.hypot(*np.diff(run.robot[:, :2], axis=0).T).sum()),
        "images": len(run.t),
        "detections": len(run.detections),
        "poses": run.poses,
        "commands": len(run.commands),
        "bounds": dict(BOUNDS),
    }


def _first_standing(run: FollowRun, hidden: float, seen: float) -> float | None:
    """Return how long after ``hidden`` the robot was commanded to stand.

    None where the target came back within less than the bound and the robot never stood.
    """
    t, speed, turn = run.commands.T
    for moment in np.flatnonzero((t >= hidden) & (t < hidden + 10)):
        if speed[moment] == 0 and turn[moment] == 0:
            return float(t[moment] - hidden)
    # Nothing is commanded any more when the robot has stood for a while already.
    before = np.flatnonzero(t < hidden)
    if before.size and speed[before[-1]] == 0 and turn[before[-1]] == 0:
        return 0.0
    return None if seen - hidden < BOUNDS["stop_s_max"] else math.inf


def _following_again(run: FollowRun, last: int) -> float | None:
    after = np.flatnonzero(run.following[last:])
    return float(run.t[last + after[0]] - run.t[last]) if after.size else None


def shortcomings(figures: dict[str, Any]) -> list[str]:
    """Return what a run did not keep, a line each."""
    problems = []
    for name, bound in figures["bounds"].items():
        value = figures[name]
        if value is not None and value > bound:
            problems.append(f"{name} = {value:.3f}, the bound is {bound:g}")
    if figures["never_resumed"]:
        problems.append(f"{figures['never_resumed']} times the target was not found again")
    if figures["distance_min"] < LEAST_DISTANCE:
        problems.append(
            f"the robot came as near as {figures['distance_min']:.2f} m, the bound is "
            f"{LEAST_DISTANCE:g} m"
        )
    if figures["followed_share"] < LEAST_FOLLOWED:
        problems.append(
            f"it followed for {100 * figures['followed_share']:.1f} % of the time with the target in "
            f"view, the bound is {100 * LEAST_FOLLOWED:g} %"
        )
    if figures["outside_share"] > MOST_OUTSIDE:
        problems.append(
            f"the target was outside the picture for {100 * figures['outside_share']:.1f} % of the "
            f"time, the bound is {100 * MOST_OUTSIDE:g} %"
        )
    if figures["speed_min"] < 0:
        problems.append(f"it was told to drive backwards at {-figures['speed_min']:.2f} m/s")
    if figures["speed_max"] > figures["max_speed"] + 1e-6:
        problems.append(f"it was told to drive at {figures['speed_max']:.2f} m/s, above max_speed")
    return problems


def plot_run(run: FollowRun, file: Path, distance: float) -> None:
    """Plot the way, distance, bearing and speed, with the times hidden shaded."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(12, 8), constrained_layout=True)
    axes = figure.add_gridspec(3, 2, width_ratios=(2, 1))
    rows = [figure.add_subplot(axes[i, 0]) for i in range(3)]
    rows[0].plot(run.t, run.distance, lw=1)
    rows[0].axhline(distance, color="0.4", ls="--", lw=1)
    rows[0].set_ylabel("distance, m")
    rows[1].plot(run.t, np.degrees(run.bearing), lw=1)
    rows[1].axhline(0, color="0.4", ls="--", lw=1)
    rows[1].set_ylabel("bearing, degrees")
    rows[2].plot(run.commands[:, 0], run.commands[:, 1], lw=1, label="speed, m/s")
    rows[2].plot(run.commands[:, 0], run.commands[:, 2], lw=1, label="turn rate, rad/s")
    rows[2].set_ylabel("command")
    rows[2].set_xlabel("time, s")
    rows[2].legend(loc="upper right", fontsize=8)
    for first, last in run.hidings():
        for row in rows:
            row.axvspan(run.t[first], run.t[min(last, len(run.t) - 1)], color="0.85", lw=0)
    way = figure.add_subplot(axes[:, 1])
    way.plot(*run.target.T, lw=1.5, label="target")
    way.plot(*run.robot[:, :2].T, lw=1.5, label="robot")
    way.set_aspect("equal", adjustable="datalim")
    way.set_xlabel("x, m")
    way.set_ylabel("y, m")
    way.legend()
    figure.suptitle("Follow-me in simulation, true places; grey: the target is hidden")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


SPEED_UP = 8
"""The video of a long run shows every so-many-th image and plays faster accordingly."""


def write_video(run: FollowRun, file: Path, scene: FollowScene, distance: float) -> None:
    """Write what the camera in ``scene`` saw, with the tracker's box, beside a map from above.

    Runs of more than two minutes are shown :data:`SPEED_UP` times as fast.
    """
    from siam_tracker_ros.evaluation.video import VideoFile

    every = SPEED_UP if run.t[-1] > 120 else 1
    fps = 1 / max(1e-3, float(np.median(np.diff(run.t))))
    with VideoFile(file, scene.width * 2, scene.height, round(fps, 2)) as video:
        for i in range(0, len(run.t), every):
            place = Place(*(float(v) for v in run.robot[i]))
            picture = scene.view(float(run.t[i]), place).pixels
            box = run.detections.get(run.stamps[i])
            if box is not None:
                cx, cy, w, h = box
                corners = [(round(cx + s * w / 2), round(cy + s * h / 2)) for s in (-1, 1)]
                cv2.rectangle(picture, corners[0], corners[1], (80, 220, 80), 2)
            state = next((text for t, text in reversed(run.states) if t <= run.t[i]), "")
            faster = f"  x{every}" if every > 1 else ""
            for text, y in ((f"{run.t[i]:6.1f} s{faster}", 24), (state, 48)):
                cv2.putText(picture, text, (8, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 3)
                cv2.putText(picture, text, (8, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * 3, 1)
            video.write(np.hstack([picture, _map(run, i, scene.width, scene.height, distance)]))


def _map(run: FollowRun, now: int, width: int, height: int, distance: float) -> Any:
    """Return a map from above, 8 m high, with the robot in its middle, ``uint8 [H, W, 3]``."""
    canvas = np.full((height, width, 3), 245, np.uint8)
    scale = height / 8.0
    here = run.robot[now, :2]

    def pixel(points: Array) -> npt.NDArray[np.int32]:
        moved = (points - here) * scale
        return np.stack([width / 2 + moved[:, 0], height / 2 - moved[:, 1]], axis=1).astype(
            np.int32
        )

    since = max(0, now - 600)
    for points, colour in ((run.target, (40, 120, 230)), (run.robot[:, :2], (160, 90, 40))):
        cv2.polylines(canvas, [pixel(points[since : now + 1])], False, colour, 2, cv2.LINE_AA)
    x, y = (int(v) for v in pixel(here[None])[0])
    yaw = float(run.robot[now, 2])
    tip = (round(x + 24 * math.cos(yaw)), round(y - 24 * math.sin(yaw)))
    cv2.circle(canvas, (x, y), round(distance * scale), (200, 200, 200), 1, cv2.LINE_AA)
    cv2.circle(canvas, (x, y), 12, (160, 90, 40), -1, cv2.LINE_AA)
    cv2.line(canvas, (x, y), tip, (160, 90, 40), 4, cv2.LINE_AA)
    tx, ty = (int(v) for v in pixel(run.target[now : now + 1])[0])
    cv2.circle(canvas, (tx, ty), 10, (40, 120, 230), -1, cv2.LINE_AA)
    text = f"{run.distance[now]:.2f} m, {math.degrees(run.bearing[now]):+.0f} deg"
    cv2.putText(canvas, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas
