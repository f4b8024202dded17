"""The report of an evaluation: one HTML file with its figures and pictures inside."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from siam_tracker_ros.evaluation.frames import Frame, PictureFrames
from siam_tracker_ros.evaluation.machine import describe_machine
from siam_tracker_ros.evaluation.metrics import FIGURES, figure_name, overlaps
from siam_tracker_ros.evaluation.protocol import (
    SKIPPED,
    SequenceResult,
    Summary,
    describe_protocol,
)
from siam_tracker_ros.evaluation.report import (
    NORMALISED,
    PRECISION,
    SUCCESS,
    curve_figure,
    timeline_figure,
)
from siam_tracker_ros.evaluation.sequences import Sequence
from siam_tracker_ros.evaluation.track_log import FrameEntry, Xywh
from siam_tracker_ros.evaluation.video import annotate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAILED_OVERLAP, FAILED_FRAMES = 0.2, 5
"""A failure: the overlap stays below this for so many visible frames, or to the end."""

AROUND = (-10, -4, 0, 4, 10, 20)
"""Frames of a strip, counted from the first one that failed."""

STRIP_WIDTH = 300
MOST_STRIPS, MOST_ROWS = 12, 40

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #24292f; margin: 2rem auto; max-width: 72rem;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #d0d7de; }
th:first-child, td:first-child { text-align: left; }
tr:hover td { background: #f6f8fa; } .best { font-weight: 600; }
img { max-width: 100%; } .strip img { margin: 0 4px 4px 0; } .note { color: #57606a; }
"""


@dataclass(frozen=True)
class Failure:
    """Where a tracker first lost its target for good, as far as the next frames show."""

    result: SequenceResult
    sequence: Sequence
    frame: int
    overlap: npt.NDArray[np.float64]


def first_failure(overlap: npt.NDArray[np.float64]) -> int | None:
    """Return the first frame of the first failure (see ``FAILED_OVERLAP``); None without one.

    Args:
        overlap: float64 [N], NaN where the target is absent.
    """
    visible = np.flatnonzero(~np.isnan(overlap))
    bad = overlap[visible] < FAILED_OVERLAP
    for start in np.flatnonzero(bad):
        if bad[start : start + FAILED_FRAMES].all():
            return int(visible[start])
    return None


def write_report(file: Path, summaries: Several[Summary], sequences: Several[Sequence]) -> None:
    """Write the report of one or more trackers on the same sequences.

    Failures and states are those of the first tracker.

    Args:
        file: where to; it is complete or not there.
        summaries: of the trackers, at least one.
        sequences: what they ran on; those that were left out may be among them.

    Raises:
        ValueError: if there is no tracker.
        ClipError, SequenceError: if a frame cannot be read any more.
    """
    if not summaries:
        raise ValueError("no trackers to report")
    own = summaries[0]
    title = f"{own.rules.title}: {len(own.results)} sequences"
    by_name = {s.name: s for s in sequences}
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _protocol(own),
        "<h2>Trackers</h2>",
        _overall(summaries),
        *_plots(summaries),
        "<h2>Sequences</h2>",
        _per_sequence(summaries),
    ]
    found = _failures(own, by_name)
    parts.append(f"<h2>First failures of {html.escape(own.tracker)}</h2>")
    parts.append(
        f'<p class="note">{len(found)} of {len(own.results)} sequences have one: the overlap stays '
        f"below {FAILED_OVERLAP} for {FAILED_FRAMES} visible frames. White: truth. "
        f"{'The first ' + str(MOST_STRIPS) + ' are shown.' if len(found) > MOST_STRIPS else ''}"
        "</p>"
    )
    parts += [_strip(failure) for failure in found[:MOST_STRIPS]]
    parts += _timeline(own, by_name)
    text = (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _protocol(own: Summary) -> str:
    machine = describe_machine()
    lines = [f"{key}: {text}" for key, text in describe_protocol(own.rules).items()]
    lines.append(f"machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}")
    if own.skipped:
        lines.append(f"left out, unreadable: {', '.join(own.skipped)}")
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return (
        f'<details class="note"><summary>Protocol and machine</summary><ul>{items}</ul></details>'
    )


def _table(head: Several[str], rows: Several[Several[str]]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    body = "\n".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>\n{body}\n</table></div>'


def _overall(summaries: Several[Summary]) -> str:
    rules = summaries[0].rules
    order = sorted(FIGURES, key=lambda f: f not in rules.headline)
    best = {f: max(getattr(s.mean, f) for s in summaries) for f in order}
    late = any(s.realtime for s in summaries)
    rows = []
    for s in sorted(summaries, key=lambda s: -getattr(s.mean, rules.headline[0])):
        mean, error = s.mean, s.standard_error(rules.headline[0])
        cells = [html.escape(s.tracker)]
        for figure in order:
            value = getattr(mean, figure)
            mark = ' class="best"' if value == best[figure] else ""
            cells.append(f"<span{mark}>{value:.3f}</span>")
        cells.append("" if math.isnan(error) else f"{error:.3f}")
        cells.append(f"{s.fps:.0f}" if s.fps < 1e5 else "")
        if late:
            cells.append(f"{s.missed:.1%}" if s.realtime else "")
        rows.append(cells)
    head = ["tracker", *(figure_name(f, rules) for f in order)]
    head += [f"± s.e. of {figure_name(rules.headline[0], rules)}", "frames a second"]
    return _table(head, rows) if not late else _table([*head, "frames missed"], rows)


def _plots(summaries: Several[Summary]) -> list[str]:
    rules = summaries[0].rules
    figures = {
        SUCCESS: "ao" if rules.headline[0] == "ao" else "auc",
        PRECISION: "precision",
        NORMALISED: "normalised_precision",
    }
    parts = ["<h2>Success and precision</h2>"]
    for kind, figure in figures.items():
        curves = {s.tracker: getattr(s.curves, kind.attribute) for s in summaries}
        values = {s.tracker: getattr(s.mean, figure) for s in summaries}
        title = f"{kind.title} [{figure_name(figure, rules)}]"
        parts.append(_picture(_png(curve_figure(curves, kind, title, values)), "png", title))
    return parts


def _per_sequence(summaries: Several[Summary]) -> str:
    rules = summaries[0].rules
    figure = rules.headline[0]
    columns = [{r.name: r for r in s.results} for s in summaries]
    rows = []
    for result in summaries[0].results:
        of_all = [c[result.name] for c in columns if result.name in c]
        best = max(getattr(r.scores, figure) for r in of_all)
        cells = [html.escape(result.name), str(result.scores.frames)]
        for column in columns:
            found = column.get(result.name)
            value = getattr(found.scores, figure) if found else math.nan
            mark = ' class="best"' if value == best else ""
            cells.append(f"<span{mark}>{value:.3f}</span>" if found else "")
        cells.append(str(result.lost_frames))
        rows.append(cells)
    name = figure_name(figure, rules)
    head = ["sequence", "frames", *(f"{name} {s.tracker}" for s in summaries)]
    return _table([*head, f"frames said LOST, {summaries[0].tracker}"], rows)


def _overlap(result: SequenceResult, sequence: Sequence) -> npt.NDArray[np.float64]:
    found = overlaps(result.run.boxes, sequence.boxes)
    found[~sequence.present] = np.nan
    return found


def _failures(own: Summary, by_name: dict[str, Sequence]) -> list[Failure]:
    found = []
    for result in own.results:
        overlap = _overlap(result, by_name[result.name])
        frame = first_failure(overlap)
        if frame is not None:
            found.append(Failure(result, by_name[result.name], frame, overlap))
    return found


def _strip(failure: Failure) -> str:
    run, truth = failure.result.run, failure.sequence.boxes
    last = len(truth) - 1
    wanted = sorted({min(max(failure.frame + step, 0), last) for step in AROUND})
    pictures = []
    for index, frame in _frames_at(failure.sequence, wanted).items():
        state = run.states[index]
        box: Xywh = tuple(float(v) for v in run.boxes[index])  # type: ignore[assignment]
        score = float(run.scores[index])
        entry = None if state == SKIPPED else FrameEntry(index, box, score, state)
        x, y, w, h = (float(v) for v in truth[index])
        drawn = annotate(frame, entry, (x, y, w, h), STRIP_WIDTH / frame.shape[1])
        ok, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 80])
        if ok:
            pictures.append(_picture(data.tobytes(), "jpeg", f"frame {index}"))
    name = html.escape(failure.result.name)
    return (
        f"<h3>{name}, frame {failure.frame} of {last}</h3>"
        f'<div class="strip">{"".join(pictures)}</div>'
    )


def _frames_at(sequence: Sequence, wanted: list[int]) -> dict[int, Frame]:
    if isinstance(sequence.frames, PictureFrames):
        files = [sequence.frames.files[i] for i in wanted]
        chosen = PictureFrames(sequence.frames.path, files=files)
        return dict(zip(wanted, chosen, strict=True))
    found = {}
    for index, frame in enumerate(sequence):
        if index in wanted:
            found[index] = frame
        if index == wanted[-1]:
            break
    return found


def _timeline(own: Summary, by_name: dict[str, Sequence]) -> list[str]:
    rows = [
        (r.name, r.run.states, _overlap(r, by_name[r.name]))
        for r in own.results
        if any(state for state in r.run.states)
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: float(np.nanmean(row[2])))
    shown = rows[:MOST_ROWS]
    note = "" if len(shown) == len(rows) else f", the {MOST_ROWS} with the least overlap"
    return [
        f"<h2>States of {html.escape(own.tracker)}{note}</h2>",
        '<p class="note">Above: what the tracker said. Below: whether its box was right.</p>',
        _picture(_png(timeline_figure(shown)), "png", "states over time"),
    ]


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def _picture(data: bytes, kind: str, words: str) -> str:
    text = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(words)}" src="data:image/{kind};base64,{text}">'
