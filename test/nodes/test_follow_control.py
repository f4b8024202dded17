from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from siam_tracker_ros.nodes.follow_control import FollowController, FollowSettings
from siam_tracker_ros.nodes.follow_scene import FollowScene, Place
from siam_tracker_ros.nodes.localization import LocalizerSettings
from siam_tracker_ros.nodes.parameters import ParameterError
from siam_tracker_ros.nodes.settings import as_markdown, defaults, read_settings

ROOT = Path(__file__).parents[2]
STEP = 0.05
PLAIN = FollowSettings()


def drive(controller: FollowController, seconds: float, x: float, y: float, t: float = 0.0) -> Any:
    """Hold a target at one place of the robot's frame; returns the last command."""
    for i in range(1, round(seconds / STEP) + 1):
        controller.see(t + i * STEP, x, y)
        command = controller.step(t + i * STEP)
    return command


places = st.tuples(
    st.floats(-5, 10), st.floats(-5, 5), st.sampled_from(["", "", "", "the target is lost"])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(places, min_size=2, max_size=40), st.floats(0.01, 0.4))
def test_no_limit_is_ever_exceeded(course: list[tuple[float, float, str]], step: float) -> None:
    controller, before = FollowController(PLAIN), (0.0, 0.0)
    for i, (x, y, stop) in enumerate(course):
        controller.see(i * step, x, y)
        command = controller.step(i * step, stop)
        assert 0.0 <= command.speed <= PLAIN.max_speed
        assert abs(command.turn_rate) <= PLAIN.max_turn_rate
        assert command.speed - before[0] <= PLAIN.acceleration * step + 1e-9
        assert before[0] - command.speed <= PLAIN.deceleration * step + 1e-9
        assert abs(command.turn_rate - before[1]) <= PLAIN.turn_acceleration * step + 1e-9
        before = (command.speed, command.turn_rate)


@given(st.floats(0.0, 1.4), st.floats(-1.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_never_backwards_unasked(x: float, y: float) -> None:
    assert drive(FollowController(PLAIN), 3.0, x, y).speed >= 0.0


def test_backwards_where_it_is_allowed_and_not_faster() -> None:
    controller = FollowController(FollowSettings(max_reverse_speed=0.2))
    assert drive(controller, 3.0, 0.8, 0.0).speed == pytest.approx(-0.2)


def test_it_stands_within_the_stated_time() -> None:
    """The pose is at most target_timeout old when the stop is asked for; the rest is slowing down."""
    controller = FollowController(PLAIN)
    fast = drive(controller, 5.0, 8.0, 4.0)
    assert fast.turn_rate > 0.5
    drive(controller, 5.0, 8.0, 0.0, 5.0)
    t, steps = 10.0, 0
    while not controller.stands:
        t, steps = t + STEP, steps + 1
        command = controller.step(t, "the target is lost")
        assert not command.moving and command.reason == "the target is lost"
    assert PLAIN.target_timeout + steps * STEP <= PLAIN.stop_time


def test_at_its_distance_it_stands_and_further_away_it_drives() -> None:
    assert drive(FollowController(PLAIN), 2.0, PLAIN.distance, 0.0).speed == 0.0
    assert drive(FollowController(PLAIN), 2.0, 3.0, 0.0).speed == pytest.approx(PLAIN.max_speed)


@pytest.mark.parametrize("side", [-1, 1])
def test_it_turns_towards_the_target_before_it_drives(side: int) -> None:
    command = drive(FollowController(PLAIN), 2.0, 2.0, side * 2.5)
    assert command.speed == 0.0
    assert command.turn_rate == pytest.approx(side * PLAIN.max_turn_rate)
    assert command.bearing == pytest.approx(side * math.atan2(2.5, 2.0))


def test_too_near_it_stops_but_turns() -> None:
    controller = FollowController(FollowSettings(distance=1.0, minimum_distance=0.9))
    controller._target_speed = 0.5  # a target that runs away is no reason to go on
    controller.see(0.0, 0.85, 0.1)
    for i in range(20):
        command = controller.step(i * STEP)
    assert command.speed == 0.0 and command.turn_rate > 0.0


def test_without_a_target_it_stands_and_says_so() -> None:
    command = FollowController(PLAIN).step(1.0)
    assert (command.speed, command.turn_rate, command.reason) == (0.0, 0.0, "no target")
    controller = FollowController(PLAIN)
    drive(controller, 2.0, 3.0, 0.0)
    controller.forget()
    assert controller.step(2.05).reason == "no target"


def test_a_picture_told_twice_or_late_changes_nothing() -> None:
    controller = FollowController(PLAIN)
    controller.see(1.0, 3.0, 0.0)
    controller.see(1.0, 1.0, 0.0)
    controller.see(0.9, 1.0, 0.0)
    assert controller.step(1.0).distance == 3.0
    controller.see(0.1, 2.0, 0.0)  # the clock was set back
    assert controller.step(0.2).distance == 2.0


def test_time_that_jumps_changes_no_speed_at_once() -> None:
    controller = FollowController(PLAIN)
    speed = drive(controller, 2.0, 4.0, 0.0).speed
    assert controller.step(-100.0, "lost").speed == speed
    assert controller.step(1e6, "lost").speed >= speed - 0.5 * PLAIN.deceleration


def test_the_targets_own_speed_is_learnt() -> None:
    """Behind a target of constant speed the error is a fraction of that without feed forward."""

    def error(feed_forward: float) -> float:
        controller = FollowController(FollowSettings(feed_forward=feed_forward))
        robot, target = 0.0, PLAIN.distance
        for i in range(600):
            controller.see(i * STEP, target - robot, 0.0)
            robot += controller.step(i * STEP).speed * STEP
            target += 0.3 * STEP
        return target - robot - PLAIN.distance

    assert error(0.0) == pytest.approx(0.3 / PLAIN.distance_gain + 0.05, abs=0.02)
    assert error(0.8) < 0.4 * error(0.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_robot_stays_with_a_walking_target(seed: int) -> None:
    """Poses 15 times a second, 0.1 s late; for a second of each 25 there are none."""
    values = FollowSettings(distance=2.0, max_speed=0.8)
    controller, scene = FollowController(values), FollowScene(120.0, seed=seed)
    robot, errors, bearings = scene.start(2.0), [], []
    late: list[tuple[float, tuple[float, float]]] = []
    newest = 0.0
    for i in range(round(120 / STEP)):
        t = i * STEP
        if t % 25 < 24:
            late.append((t, robot.seen(*scene.target(t))))
        while late and late[0][0] <= t - 0.1:
            newest, place = late.pop(0)
            controller.see(newest, *place)
        fresh = t - newest <= values.target_timeout
        command = controller.step(t, "" if fresh else "no fresh pose")
        robot = Place(
            robot.x + command.speed * STEP * math.cos(robot.yaw),
            robot.y + command.speed * STEP * math.sin(robot.yaw),
            robot.yaw + command.turn_rate * STEP,
        )
        x, y = robot.seen(*scene.target(t))
        errors.append(abs(math.hypot(x, y) - 2.0))
        bearings.append(abs(math.atan2(y, x)))
    assert np.percentile(errors, 95) < 0.5 and np.median(errors) < 0.2
    assert np.percentile(bearings, 95) < 0.3


SEARCHING = FollowSettings(search_time=10.0)
LOST = "the target is lost"


def follow_then_lose(
    controller: FollowController, y: float, seconds: float, search: bool = True
) -> list[Any]:
    """Follow a target ``y`` metres to the left, then lose it; the commands from the loss on."""
    drive(controller, 1.0, 2.0, y)
    controller.forget()
    steps = range(1, round(seconds / STEP) + 1)
    return [controller.step(1.0 + i * STEP, LOST, search) for i in steps]


def test_a_lost_target_is_not_looked_for_unasked() -> None:
    for controller, search in (
        (FollowController(PLAIN), True),
        (FollowController(SEARCHING), False),
    ):
        commands = follow_then_lose(controller, 0.5, 15.0, search)
        assert all((c.speed, c.turn_rate) == (0.0, 0.0) for c in commands[20:])
        assert not any(c.searching for c in commands)


@pytest.mark.parametrize("side", [-1, 1])
def test_it_looks_to_the_side_where_it_was_to_the_other_and_to_the_first_again(side: int) -> None:
    s = SEARCHING
    commands = follow_then_lose(FollowController(s), 0.3 * side, 15.0)
    turned = side * np.cumsum([c.turn_rate * STEP for c in commands])
    settled = round(0.9 * s.search_delay / STEP)  # it stands before it looks
    assert commands[settled].turn_rate == 0.0 and commands[settled].speed == 0.0
    furthest = int(np.argmax(turned[:100]))
    assert turned[furthest] == pytest.approx(s.search_angle, abs=0.05)
    assert np.min(turned[furthest:]) == pytest.approx(-s.search_angle, abs=0.05)
    assert turned[-1] == pytest.approx(s.search_angle, abs=0.05)
    slow = [abs(c.turn_rate) for c in commands[settled:]]
    assert max(slow) <= s.search_rate + 1e-9
    assert all(c.speed == 0.0 and c.reason == LOST and not c.moving for c in commands[settled:])
    assert commands[settled].searching and not commands[-1].searching
    assert commands[-1].turn_rate == 0.0


def test_looking_ends_in_time_with_a_stop_and_is_not_resumed() -> None:
    commands = follow_then_lose(FollowController(FollowSettings(search_time=2.0)), 0.5, 8.0)
    assert not any(c.turn_rate or c.searching for c in commands[round(4.0 / STEP) :])
    controller = FollowController(SEARCHING)
    commands = follow_then_lose(controller, 0.5, 2.0)
    assert commands[-1].turn_rate > 0.2
    t = 3.0
    for why, search in (("the dead-man switch is not held", False), (LOST, True)):
        for _ in range(20):
            t += STEP
            command = controller.step(t, why, search)
        assert command.turn_rate == 0.0 and not command.searching


def test_what_was_never_followed_or_is_another_is_not_looked_for() -> None:
    controller = FollowController(SEARCHING)
    controller.see(0.0, 2.0, 1.0)
    assert not any(controller.step(i * STEP, LOST, True).turn_rate for i in range(100))
    drive(controller, 1.0, 2.0, 0.5, 10.0)
    controller.forget_side()
    commands = [controller.step(11.0 + i * STEP, LOST, True) for i in range(1, 100)]
    assert not any(c.searching for c in commands) and commands[-1].turn_rate == 0.0


def test_once_found_it_follows_and_the_next_search_is_a_new_one() -> None:
    controller = FollowController(SEARCHING)
    assert follow_then_lose(controller, 0.5, 3.0)[-1].searching
    controller.see(4.05, 2.0, -0.5)
    assert controller.step(4.05).moving
    commands = [controller.step(4.05 + i * STEP, LOST, True) for i in range(1, 50)]
    assert commands[-1].searching and commands[-1].turn_rate < -0.1


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"distance": 0.5}, "minimum_distance"),
        ({"max_speed": -1.0}, "0 to 10"),
        ({"deadman": "never"}, "bool, joy, none"),
        ({"rate": 1}, "5 to 200"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ParameterError, match=word):
        read_settings(FollowSettings, values)


def test_the_page_has_the_nodes_own_table() -> None:
    page = (ROOT / "docs" / "follow_controller_node.md").read_text(encoding="utf-8")
    assert as_markdown(FollowSettings) in page


def test_the_shipped_file_has_the_defaults() -> None:
    file = yaml.safe_load((ROOT / "config" / "follow_me.yaml").read_text(encoding="utf-8"))
    for name, kind in (
        ("target_localizer", LocalizerSettings),
        ("follow_controller", FollowSettings),
    ):
        given_values = file[f"/**/{name}"]["ros__parameters"]
        assert set(given_values) == {f.name for f in fields(kind)}
        assert read_settings(kind, given_values) == kind(**defaults(kind))
