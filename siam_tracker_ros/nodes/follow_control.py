"""How fast a robot shall drive to keep its distance to a target: pure arithmetic, no ROS.

The robot's frame is x forward, y left, z up, metres. A :class:`FollowController` is asked for a command
many times a second; it never exceeds its limits of speed and acceleration, never drives backwards unless
allowed to, and slows down to zero when it has no fresh target, no permission, or the target is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from siam_tracker_ros.nodes.parameters import Change
from siam_tracker_ros.nodes.settings import Settings, as_markdown, setting


@dataclass(frozen=True)
class FollowSettings(Settings):
    """The values of all parameters of ``follow_controller_node``; the fields are the table."""

    distance: float = setting(
        1.5, "Distance to keep to the target, on the ground.", low=0.1, high=100.0, unit="m"
    )
    distance_tolerance: float = setting(
        0.05, "A distance error below this moves nothing.", low=0.0, high=10.0, unit="m"
    )
    bearing_tolerance: float = setting(
        0.02, "A bearing below this turns nothing.", low=0.0, high=1.0, unit="rad"
    )
    minimum_distance: float = setting(
        0.6,
        "A target nearer than this stops the robot; it still turns, and backs off where "
        "max_reverse_speed allows it.",
        low=0.0,
        high=100.0,
        unit="m",
    )
    max_speed: float = setting(0.5, "Forward speed at most.", low=0.0, high=10.0, unit="m/s")
    max_reverse_speed: float = setting(
        0.0, "Backward speed at most; 0: never backwards.", low=0.0, high=10.0, unit="m/s"
    )
    max_turn_rate: float = setting(1.0, "Turning at most.", low=0.0, high=10.0, unit="rad/s")
    acceleration: float = setting(0.5, "Gain of speed at most.", low=0.01, high=20.0, unit="m/s^2")
    deceleration: float = setting(
        1.0, "Loss of speed at most, for stopping too.", low=0.01, high=20.0, unit="m/s^2"
    )
    turn_acceleration: float = setting(
        2.0, "Change of the turn rate at most.", low=0.01, high=50.0, unit="rad/s^2"
    )
    distance_gain: float = setting(
        0.8, "Speed for each metre of distance error.", low=0.0, high=10.0, unit="1/s"
    )
    bearing_gain: float = setting(
        1.5, "Turn rate for each radian of bearing.", low=0.0, high=10.0, unit="1/s"
    )
    feed_forward: float = setting(
        0.8, "Share of the target's own estimated speed that is driven along.", low=0.0, high=1.0
    )
    turn_first: float = setting(
        0.7, "Bearing from which on the robot only turns.", low=0.05, high=3.2, unit="rad"
    )
    min_score: float = setting(
        0.3, "A detection with a lower score counts as lost.", low=0.0, high=1.0
    )
    target_timeout: float = setting(
        0.5,
        "Age of the newest pose, by its stamp, at which the robot stops.",
        low=0.05,
        high=10.0,
        unit="s",
    )
    future_tolerance: float = setting(
        0.1,
        "How far a stamp may lie in the future before it is refused.",
        low=0.0,
        high=10.0,
        unit="s",
    )
    deadman: str = setting(
        "bool",
        "What must allow driving: bool (std_msgs/Bool true on `deadman`), joy (a button of "
        "sensor_msgs/Joy on `joy`), or none.",
        Change.CONFIGURE,
        choices=("bool", "joy", "none"),
    )
    deadman_button: int = setting(4, "The button, counted from 0.", low=0, high=63)
    deadman_timeout: float = setting(
        0.5, "The permission holds for so long after each message.", low=0.05, high=10.0, unit="s"
    )
    base_frame: str = setting(
        "base_link",
        "The robot's frame (x forward, y left). Empty: poses are in the frame of a camera that looks "
        "forward, and no TF is used.",
        Change.CONFIGURE,
    )
    stamped: bool = setting(
        False, "Publish TwistStamped instead of Twist on `cmd_vel`.", Change.CONFIGURE
    )
    rate: float = setting(
        20.0, "Commands a second.", Change.CONFIGURE, low=5.0, high=200.0, unit="1/s"
    )
    search_time: float = setting(
        0.0,
        "How long the robot turns on the spot to look for a target that the tracker says is lost, with "
        "the dead-man switch held; 0: never.",
        low=0.0,
        high=60.0,
        unit="s",
    )
    search_delay: float = setting(
        1.0,
        "It stands for so long first: most come back by themselves.",
        low=0.0,
        high=60.0,
        unit="s",
    )
    search_rate: float = setting(
        0.3,
        "Turn rate of looking; slow, for what is blurred is not found.",
        low=0.01,
        high=2.0,
        unit="rad/s",
    )
    search_angle: float = setting(
        0.5,
        "How far it turns: to the side where the target was, to the other, and to the first again.",
        low=0.05,
        high=3.1,
        unit="rad",
    )
    zero_hold: float = setting(
        1.0,
        "Zeros are published for so long after a stop; then another may drive.",
        low=0.2,
        high=60.0,
        unit="s",
    )

    def problems(self) -> list[str]:
        """Say what is wrong with values that are right one by one."""
        found = []
        if self.minimum_distance >= self.distance:
            found.append(
                f"minimum_distance = {self.minimum_distance:g} must be below distance = "
                f"{self.distance:g}"
            )
        return found

    @property
    def stop_time(self) -> float:
        """Seconds from the last good pose's stamp within which the robot stands."""
        slowest = max(
            max(self.max_speed, self.max_reverse_speed) / self.deceleration,
            self.max_turn_rate / self.turn_acceleration,
        )
        return self.target_timeout + slowest + 2 / self.rate


@dataclass(frozen=True)
class Command:
    """What to drive.

    Attributes:
        speed: forward, m/s.
        turn_rate: to the left, rad/s.
        moving: whether a target is being followed; else the robot stops or stands.
        reason: why it does not follow; empty while it does.
        distance, bearing: of the target, m and rad to the left; None without one.
        searching: whether a lost target is looked for: the robot turns, or is about to.
    """

    speed: float
    turn_rate: float
    moving: bool
    reason: str = ""
    distance: float | None = None
    bearing: float | None = None
    searching: bool = False


SPEED_MEMORY = 0.6
"""Time constant of the estimate of the target's own speed, seconds."""

REST = 0.01
"""A lower speed is not worth driving, m/s: it is what is left of the estimate."""

ARRIVED = 0.03
"""A turn that is so near to where it shall end has ended, rad."""

GAP = 0.7
"""After a longer time without a target its speed is taken to be unknown, seconds."""


class FollowController:
    """Turns positions of the target into commands. Times are of one clock, seconds."""

    def __init__(self, settings: FollowSettings) -> None:
        self.settings = settings
        self._speed = 0.0
        self._turn_rate = 0.0
        self._time: float | None = None
        self._target: tuple[float, float] | None = None
        self._range: tuple[float, float] | None = None  # time and distance of the newest position
        self._target_speed = 0.0
        self._driven = 0.0  # metres along the target's direction since that position
        self._side = 0.0  # of the target when it was followed last: 1 left, -1 right, 0 never
        self._search = _Search()

    @property
    def stands(self) -> bool:
        """Whether the last command was zero."""
        return self._speed == 0.0 and self._turn_rate == 0.0

    def see(self, stamp: float, x: float, y: float) -> None:
        """Take a new position of the target in the robot's frame, seen at ``stamp``."""
        distance, before = math.hypot(x, y), self._range
        if before is not None and 1e-3 < stamp - before[0] <= GAP:
            passed = stamp - before[0]
            away = (distance - before[1] + self._driven) / passed
            share = 1 - math.exp(-passed / SPEED_MEMORY)
            limit = 2 * self.settings.max_speed
            self._target_speed += share * (min(max(away, -limit), limit) - self._target_speed)
        elif before is None or stamp > before[0] or stamp < before[0] - GAP:
            self._target_speed = 0.0
        else:
            return  # the same picture again, or an older one
        self._target, self._range, self._driven = (x, y), (stamp, distance), 0.0

    def forget(self) -> None:
        """Take the target to be gone; where it was is still known, for looking for it."""
        self._target = self._range = None
        self._target_speed = 0.0

    def forget_side(self) -> None:
        """Take the target to be another from now on: the one before is not looked for."""
        self._side, self._search = 0.0, _Search()

    def step(self, now: float, stop: str = "", search: bool = False) -> Command:
        """Return the command for this moment.

        Args:
            now: seconds; time that jumps back or stands still changes no speed.
            stop: a reason to slow down to zero, whatever the target does.
            search: whether ``stop`` is one for which the robot may look for the target, if the
                settings say that it shall.
        """
        s = self.settings
        passed = 0.0 if self._time is None else min(max(now - self._time, 0.0), 0.5)
        self._time = now
        distance = bearing = None
        if self._target is None:
            stop = stop or "no target"
        else:
            x, y = self._target
            distance, bearing = math.hypot(x, y), math.atan2(y, x)
            self._driven += self._speed * math.cos(bearing) * passed
        speed = turn_rate = 0.0
        searching = False
        if not stop and distance is not None and bearing is not None:
            speed, turn_rate = self._wanted(distance, bearing)
            self._side, self._search = math.copysign(1.0, bearing), _Search()
        elif search and self._side and s.search_time > 0:
            turned = self._search.turned + self._turn_rate * passed
            self._search, turn_rate = self._search.after(passed, turned, self._side, s)
            searching = not self._search.over
        elif self._search.time > 0:
            self._search = replace(self._search, over=True)  # what was interrupted is not resumed
        self._speed = self._ramped(self._speed, speed, passed)
        change = s.turn_acceleration * passed
        self._turn_rate += min(max(turn_rate - self._turn_rate, -change), change)
        if stop:
            self._range = None  # its speed is learnt anew
            self._target_speed = 0.0
        return Command(self._speed, self._turn_rate, not stop, stop, distance, bearing, searching)

    def _wanted(self, distance: float, bearing: float) -> tuple[float, float]:
        s = self.settings
        turn_rate = s.bearing_gain * _beyond(bearing, s.bearing_tolerance)
        turn_rate = min(max(turn_rate, -s.max_turn_rate), s.max_turn_rate)
        error = _beyond(distance - s.distance, s.distance_tolerance)
        speed = s.distance_gain * error + s.feed_forward * self._target_speed
        if abs(bearing) >= s.turn_first:
            speed = 0.0
        elif speed > 0:
            speed *= max(0.0, math.cos(bearing * math.pi / 2 / s.turn_first))
        if distance <= s.minimum_distance:
            speed = min(speed, 0.0)
        if abs(speed) < REST:
            speed = 0.0
        return min(max(speed, -s.max_reverse_speed), s.max_speed), turn_rate

    def _ramped(self, speed: float, wanted: float, passed: float) -> float:
        """Return the speed after ``passed`` seconds on the way to ``wanted``."""
        s = self.settings
        if speed * wanted < 0:
            wanted = 0.0  # through a stop
        rate = s.acceleration if abs(wanted) > abs(speed) else s.deceleration
        change = rate * passed
        return speed + min(max(wanted - speed, -change), change)


@dataclass(frozen=True)
class _Search:
    """Looking for a lost target: to the side where it was, to the other, and to the first again.

    Attributes:
        time: seconds since the loss.
        turned: radians to the left since then.
        leg: which of the three turns is under way.
        over: whether it has come to its end.
    """

    time: float = 0.0
    turned: float = 0.0
    leg: int = 0
    over: bool = False

    def after(
        self, passed: float, turned: float, side: float, s: FollowSettings
    ) -> tuple[_Search, float]:
        """Return the search ``passed`` seconds later, and the turn rate wanted then."""
        time = self.time + passed
        over = self.over or time >= s.search_delay + s.search_time
        if over or time < s.search_delay:
            return _Search(time, turned, self.leg, over), 0.0
        left = s.search_angle * side * (1.0, -1.0, 1.0)[self.leg] - turned
        if abs(left) < ARRIVED:
            return _Search(time, turned, min(self.leg + 1, 2), self.leg == 2), 0.0
        rate = min(s.search_rate, s.max_turn_rate, s.bearing_gain * abs(left))
        return _Search(time, turned, self.leg, False), math.copysign(rate, left)


def _beyond(error: float, tolerance: float) -> float:
    """Return what of an error is beyond the tolerance: 0 within it, and no jump at its edge."""
    return math.copysign(max(0.0, abs(error) - tolerance), error)


if __name__ == "__main__":
    print(as_markdown(FollowSettings))
