from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from siam_tracker_ros.evaluation import Answer, Sequence, evaluate_tracker, synthetic_sequence
from siam_tracker_ros.evaluation.html_report import first_failure, write_report
from siam_tracker_ros.evaluation.peers import PeerMaker
from siam_tracker_ros.evaluation.protocol import RealTime
from siam_tracker_ros.evaluation.report import curve_figure, timeline_figure


class LosesItAtFive:
    """Right for five frames, then in a corner; says so late."""

    def __init__(self, boxes: np.ndarray) -> None:
        self.boxes = boxes

    def start(self, frame, box):
        self.index = 0
        return Answer(box, 1.0, "TRACKING")

    def track(self, frame):
        self.index += 1
        if self.index < 5:
            return Answer(tuple(map(float, self.boxes[self.index])), 0.9, "TRACKING")
        return Answer((0.0, 0.0, 4.0, 4.0), 0.1, "LOST" if self.index > 7 else "UNCERTAIN")


def test_the_first_failure_lasts():
    overlap = np.array([1, 0.1, 0.9, np.nan, 0, 0, np.nan, 0.1, 0, 0.15, 0.9])
    assert first_failure(overlap) == 4, "one bad frame is none, absent frames do not count"
    assert first_failure(np.array([1, 0.8, 0.1])) == 2, "to the end"
    assert first_failure(np.array([1, 0.8, 0.3])) is None


def test_one_file_with_everything_inside(tmp_path: Path):
    clip = synthetic_sequence(320, 240, 16)
    clip = Sequence("<b>&clip", clip.frames, clip.boxes, clip.source)
    ours = evaluate_tracker(lambda: LosesItAtFive(clip.boxes), [clip], name="ours & mine")
    late = evaluate_tracker(
        lambda: LosesItAtFive(clip.boxes), [clip], name="ours", realtime=RealTime(10, (0.25,))
    )
    static = evaluate_tracker(PeerMaker("static"), [clip])
    write_report(tmp_path / "out" / "report.html", [ours, late, static], [clip])
    text = (tmp_path / "out" / "report.html").read_text()
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["report.html"]
    assert "<b>" not in text and "&lt;b&gt;&amp;clip" in text and "ours &amp; mine" in text
    assert "ours-realtime10" in text and "frames missed" in text
    assert "1 of 1 sequences have one" in text and "frame 5 of 15" in text
    assert "http" not in text and "<script" not in text, "nothing from outside"
    found = re.findall(r'src="data:image/(png|jpeg);base64,([^"]+)"', text)
    assert [kind for kind, _ in found] == ["png"] * 3 + ["jpeg"] * 5 + ["png"]
    for _, data in found:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.std() > 5
    assert f'<span class="best">{ours.auc:.3f}</span>' in text


def test_a_tracker_without_states_has_no_timeline(tmp_path: Path):
    clip = synthetic_sequence(160, 120, 8)
    write_report(tmp_path / "r.html", [evaluate_tracker(PeerMaker("static"), [clip])], [clip])
    assert "States of" not in (tmp_path / "r.html").read_text()
    with pytest.raises(ValueError, match="no trackers to report"):
        write_report(tmp_path / "r.html", [], [clip])


def test_figures_show_what_they_are_given():
    figure = curve_figure({"a": np.ones(21), "b": np.zeros(21)}, values={"a": 0.1, "b": 0.7})
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["b [0.700]", "a [0.100]"]
    figure = timeline_figure([("x", ("TRACKING", "LOST", ""), np.array([1, 0, np.nan]))])
    above, below = (image.get_array() for image in figure.axes[0].images)
    assert above.shape == below.shape == (1, 3, 3)
    assert len({tuple(c) for c in np.concatenate([above[0], below[0]])}) == 6
    with pytest.raises(ValueError, match="no sequences to plot"):
        timeline_figure([])
