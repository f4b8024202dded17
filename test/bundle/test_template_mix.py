"""A template that takes in newer pictures."""

from __future__ import annotations

import numpy as np

from siam_tracker_ros.bundle import TemplateMix


def values(number, dtype=np.float32):
    return {"kernel": np.full((2, 3), number, dtype), "descriptor": np.array([number], dtype)}


def test_the_first_picture_and_a_running_mean_of_later_ones():
    mix = TemplateMix(values(10))
    for newer, mean in ((20, 20.0), (0, 0.7 * 20), (30, 0.7 * 14 + 0.3 * 30)):
        found = mix.add(values(newer), rate=0.3, share=0.2)
        assert found.keys() == {"kernel", "descriptor"}
        np.testing.assert_allclose(found["kernel"], np.full((2, 3), 8 + 0.2 * mean), rtol=1e-6)


def test_what_was_taken_in_wrongly_is_outgrown():
    mix = TemplateMix(values(10))
    worst = mix.add(values(1000), rate=0.3, share=0.2)["descriptor"][0]
    for _ in range(30):
        last = mix.add(values(10), rate=0.3, share=0.2)["descriptor"][0]
    assert worst == np.float32(0.8 * 10 + 0.2 * 1000)
    assert abs(last - 10) < 0.01


def test_half_precision_stays_half_and_the_mean_is_kept_in_single():
    mix = TemplateMix(values(10, np.float16))
    for _ in range(40):
        found = mix.add(values(10.01, np.float16), rate=0.001, share=0.5)
    assert found["kernel"].dtype == np.float16


def test_other_outputs_of_the_template_graph_are_left_alone():
    mix = TemplateMix({"kernel": np.zeros((2, 3), np.float32)})
    assert mix.add(values(1), 0.3, 0.2).keys() == {"kernel"}
