"""Fit a bundle's presence model: from what a graph says to the probability that it is right.

The bundle itself runs through the real tracker, in its closed loop, on clips that its weights have
not seen (:mod:`siam_tracker_ros.evaluation.presence`).
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.bundle import PRESENCE_FEATURES, Bundle, PresenceSpec, write_bundle
from siam_tracker_ros.bundle.schema import bundle_data, dump_yaml, parse_bundle, parse_yaml
from siam_tracker_ros.bundle.types import BUNDLE_FILE
from siam_tracker_ros.deployment.graphs import export_graphs
from siam_tracker_ros.deployment.model_card import Figures, with_presence
from siam_tracker_ros.evaluation.presence import (
    RIGHT_IOU,
    Clip,
    ClipRun,
    Look,
    StateFigures,
    run_clips,
    state_figures,
)
from siam_tracker_ros.evaluation.reliability import (
    BINS,
    Bin,
    auroc,
    calibration_error,
    plot_reliability,
    reliability,
)
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.networks.tracker_network import TrackerNetwork
from siam_tracker_ros.tracking import StatefulSession, presence, presence_features

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SIGNS = {"score": 1.0, "runner_up_ratio": -1.0, "size_change": -1.0}
"""Which way a feature may push the probability: a higher score never makes it smaller."""

RIDGE = 1.0
"""Strength of the penalty on the squared weights of standardised features."""

FEW = 50
"""Right, and wrong, looks that a fit takes at least."""

FIRST_SHARE = 3
"""One clip in so many is first run with every frame trusted, for a first fit."""

FOUND = 0.75
LOST_SHARE = 0.01
"""The rule of the thresholds; see :func:`thresholds`."""


class PresenceError(ValueError):
    """A presence model that cannot be fitted; the message says what is missing."""


@dataclass(frozen=True)
class Quality:
    """What a score is worth on N looks.

    Attributes:
        auroc: chance that a right look scores above a wrong one.
        calibration_error: expected calibration error, 15 bins of equally many looks.
        bins: the reliability diagram.
        looks: N.
        right: share of right ones.
        states: what the track's states are worth with it.
    """

    auroc: float
    calibration_error: float
    bins: tuple[Bin, ...]
    looks: int
    right: float
    states: StateFigures

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None for what could not be measured."""
        plain = {**asdict(self), "bins": [list(b) for b in self.bins]}
        return _without_nan(plain)


@dataclass(frozen=True)
class Calibration:
    """A fitted presence model, and what it and the one before it are worth on clips it was not fitted on."""

    spec: PresenceSpec
    before: Quality
    after: Quality


def calibrate(
    bundle: Bundle,
    session: StatefulSession,
    fit: Sequence[Clip],
    check: Sequence[Clip],
    say: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Fit a presence model on ``fit`` and measure it on ``check``, both in closed loop.

    A first fit, on a part of the clips with every frame trusted, gives the states in which all clips
    are then run for the second fit: what is fitted depends on the bundle's graphs alone, not on the
    presence model that it had.

    Args:
        bundle: as loaded; its presence model is the one that is compared with.
        session: of that bundle.
        fit: clips to fit on.
        check: clips of other sources.
        say: called with a line for each step.

    Raises:
        PresenceError: if the clips do not show enough of both, right and wrong.
    """

    def run(name: str, spec: PresenceSpec, clips: Sequence[Clip]) -> list[ClipRun]:
        say(f"{name}: {len(clips)} clips")
        return run_clips(replace(bundle, presence=spec), session, clips)

    trusting = PresenceSpec(found=0.0, lost=0.0)
    spec = fit_presence(_looks(run("first fit", trusting, fit[::FIRST_SHARE])))
    spec = fit_presence(_looks(run("fit", spec, fit)))
    before = _quality(run("check, as it was", bundle.presence, check))
    return Calibration(spec, before, _quality(run("check, fitted", spec, check)))


def fit_presence(looks: Sequence[Look]) -> PresenceSpec:
    """Fit a logistic model on all features whose weight has the sign that it must have, and its thresholds.

    Raises:
        PresenceError: if there are too few right or wrong looks, or the score tells nothing.
    """
    right = np.array([look.right for look in looks], dtype=np.bool_)
    if min(right.sum(), (~right).sum()) < FEW:
        raise PresenceError(
            f"too few looks to calibrate presence on: {right.sum()} right and {(~right).sum()} wrong, "
            f"at least {FEW} of each are wanted: more clips, or a network that finds something"
        )
    rows = [presence_features(look.result, look.previous_size) for look in looks]
    features = list(PRESENCE_FEATURES)
    while True:
        values = np.array([[row[name] for name in features] for row in rows])
        weights, bias = logistic_regression(values, right)
        wrong = [n for n, w in zip(features, weights, strict=True) if w * SIGNS[n] <= 0]
        if not wrong:
            break
        if "score" in wrong:
            others = [n for n in wrong if n != "score"] or [n for n in features if n != "score"]
            wrong = others or wrong
        if wrong == ["score"]:
            raise PresenceError("the score tells nothing: it is no higher where the box is right")
        features = [n for n in features if n not in wrong]
    spec = PresenceSpec(
        "logistic",
        tuple(features),
        tuple(round(float(w), 4) for w in weights),
        round(bias, 4),
        found=1.0,
        lost=0.0,
    )
    found, lost = thresholds(_scores(spec, looks), right)
    return replace(spec, found=found, lost=lost)


def logistic_regression(values: Floats, right: Bools, ridge: float = RIDGE) -> tuple[Floats, float]:
    """Return weights [F] and bias of sigmoid(bias + values @ weights), by Newton's method.

    Args:
        values: float64 [N,F].
        right: bool [N].
        ridge: penalty on the squared weights of the standardised features; the bias has none.
    """
    mean, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9)
    x = np.column_stack([(values - mean) / scale, np.ones(len(values))])
    penalty = ridge * np.append(np.ones(values.shape[1]), 0.0)
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (p - right) + penalty * beta
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9)
        step = np.linalg.solve(hessian, gradient)
        beta -= step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    weights = beta[:-1] / scale
    return weights, float(beta[-1] - weights @ mean)


def thresholds(scores: Floats, right: Bools) -> tuple[float, float]:
    """Return ``found`` and ``lost`` of the tracker's states for calibrated ``scores``.

    ``found`` is three quarters: to follow something wrong is taken to cost three times as much as not to
    follow something right, so that the expected cost is least there. ``lost`` is the
    largest probability, not above ``found``, below which no more than 1 % of the right looks fall.
    """
    lost = min(float(np.quantile(scores[right], LOST_SHARE)), FOUND)
    return FOUND, round(lost, 3)


def calibrate_network(
    network: TrackerNetwork,
    fit: Sequence[Clip],
    check: Sequence[Clip],
    say: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Calibrate a network that has no bundle yet, on ONNX Runtime; see :func:`calibrate`.

    Raises:
        PresenceError: as :func:`calibrate`.
        ExportError: if the network cannot be exported.
    """
    graphs = export_graphs(network)
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(
            Path(folder) / "calibrated",
            name="calibrated",
            tracker=network.config.tracker,
            crop=network.config.crop,
            graphs={key: graph.spec for key, graph in graphs.items()},
            tuning=network.default_tuning,
            presence=PresenceSpec(),
            contents={graph.spec.file: graph.data for graph in graphs.values()},
        )
        session = open_session(bundle, "onnxruntime")
        try:
            return calibrate(bundle, session, fit, check, say)
        finally:
            session.close()


def rewrite_bundle(bundle: Bundle, calibration: Calibration, figures: Figures) -> None:
    """Put a presence model into a bundle on the disk, and its figures into the model card.

    Nothing else of bundle.yaml changes; graphs and engines stay good.

    Raises:
        OSError: if the bundle's folder cannot be written.
        BundleError: if the result is no bundle.
    """
    where = bundle.path / BUNDLE_FILE
    text = dump_yaml(bundle_data(replace(bundle, presence=calibration.spec)))
    parse_bundle(parse_yaml(text, where), where)
    card = bundle.path / "README.md"
    if card.is_file():
        _replace(card, with_presence(card.read_text(encoding="utf-8"), figures))
    _replace(where, text)


def presence_figures(calibration: Calibration, how: str) -> dict[str, Any]:
    """Return what the model card says about presence, as plain data of its key ``presence``.

    Args:
        calibration: what was measured.
        how: the clips and the command, a sentence.
    """
    rows = []
    for name, q in (("before", calibration.before), ("calibrated", calibration.after)):
        s = q.states
        rows.append(
            {
                "score": name,
                "AUROC": _short(q.auroc),
                "expected calibration error": _short(q.calibration_error),
                "looks": q.looks,
                "of them right": _short(q.right),
                "losses declared": f"{_percent(s.declared)} of {s.absences}",
                "frames to declare": _short(s.frames_to_declare, 1),
                "false losses per 1000 frames": _short(s.false_per_1000, 2),
                "found again": f"{_percent(s.recovered)} of {s.returns}",
                "frames to find": _short(s.frames_to_recover, 1),
                "TRACKING but wrong": _short(s.wrong_share),
            }
        )
    spec = calibration.spec
    model = " ".join(f"{w:+g} {n}" for n, w in zip(spec.features, spec.weights, strict=True))
    protocol = (
        f"The score is the probability that the target is visible and the box right (IoU > {RIGHT_IOU}): "
        f"sigmoid({spec.bias:g} {model}); found {spec.found:g}, lost {spec.lost:g}. {how} The calibration error is the "
        f"expected one over {BINS} bins of equally many looks; docs/presence.md explains the columns."
    )
    return {"protocol": protocol, "rows": rows}


def write_report(calibration: Calibration, folder: Path, name: str) -> None:
    """Write ``presence.json`` (everything) and ``reliability.png`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        "presence": presence_data(calibration.spec),
        "before": calibration.before.to_json(),
        "after": calibration.after.to_json(),
    }
    (folder / "presence.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    curves = {
        f"{label}: AUROC {q.auroc:.3f}, ECE {q.calibration_error:.3f}": list(q.bins)
        for label, q in (("before", calibration.before), ("calibrated", calibration.after))
    }
    plot_reliability(curves, folder / "reliability.png", name)


def presence_data(spec: PresenceSpec) -> dict[str, Any]:
    """Return a presence model as plain data, as a checkpoint's metadata keep it."""
    plain = asdict(spec)
    return {**plain, "features": list(spec.features), "weights": list(spec.weights)}


def _looks(runs: Iterable[ClipRun]) -> list[Look]:
    return [look for run in runs for look in run.looks]


def _scores(spec: PresenceSpec, looks: Sequence[Look]) -> Floats:
    return np.array([presence(spec, look.result, look.previous_size) for look in looks])


def _quality(runs: Sequence[ClipRun]) -> Quality:
    looks = _looks(runs)
    scores, right = np.array([x.score for x in looks]), np.array([x.right for x in looks], np.bool_)
    return Quality(
        auroc(scores, right),
        calibration_error(scores, right),
        tuple(reliability(scores, right)),
        len(looks),
        float(right.mean()) if len(looks) else math.nan,
        state_figures(runs),
    )


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _short(value: float, places: int = 3) -> float | str:
    return "-" if math.isnan(value) else round(value, places)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def _without_nan(value: Any) -> Any:
    """Return plain data with None for NaN and numbers rounded to four places."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value
