"""A tracker costs its crop and its network, and next to nothing besides."""

from __future__ import annotations

import tracemalloc

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.tracking import Tracker, fake_bundle

START = Box.from_xywh(100, 90, 60, 40)


def test_overhead_besides_crop_and_step_is_below_a_fifth_of_a_millisecond(world, make, say):
    tracker, _ = make(say())
    picture = world()
    tracker.initialize(picture, START)
    overheads = []
    for _ in range(200):
        timing = tracker.update(picture).timing
        assert timing.total_ms >= timing.crop_ms + timing.step_ms
        overheads.append(timing.total_ms - timing.crop_ms - timing.step_ms)
    assert sorted(overheads)[100] < 0.2


def test_updating_and_selecting_do_not_grow_memory(world, make, say):
    class Bounded:
        """Plays one answer and keeps nothing."""

        description = "bounded"

        def start(self, template, search, size):
            return say()(search, size)

        def step(self, search, previous_size, memory=None):
            return say()(search, previous_size)

        def commit(self):
            pass

        def set_tuning(self, name, value):
            pass

    tracker, picture = Tracker(fake_bundle(), Bounded()), world()

    def use(times):
        for _ in range(times):
            tracker.initialize(picture, START)
            tracker.update(picture)

    use(10)
    tracemalloc.start()
    use(5)
    before, _ = tracemalloc.get_traced_memory()
    use(60)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 20_000  # one forgotten search crop is 195,075 bytes
