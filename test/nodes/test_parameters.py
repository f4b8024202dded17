"""The parameter table: what is refused, what is taken over, and the table in the documentation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from siam_tracker_ros.bundle import PresenceSpec
from siam_tracker_ros.nodes.parameters import (
    DEFAULTS,
    SPECS,
    ParameterError,
    TrackerParameters,
    as_markdown,
    read_parameters,
)
from siam_tracker_ros.tracking import TrackerSettings, fake_bundle

ROOT = Path(__file__).resolve().parents[2]


def test_the_defaults_are_allowed() -> None:
    assert read_parameters(DEFAULTS) == TrackerParameters() == read_parameters({})
    assert TrackerParameters().tracker_settings() == TrackerSettings()


def test_whole_numbers_stand_for_real_ones() -> None:
    parameters = read_parameters({"window": 1, "selection_tolerance": 0})
    assert parameters.window == 1.0 and isinstance(parameters.window, float)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"window": 1.5}, "window must be 0 to 1, or -1, got 1.5"),
        ({"window": -0.5}, "window must be"),
        ({"window": float("nan")}, "window must be"),
        ({"window": "0.3"}, "window must be a number, got '0.3'"),
        ({"window": True}, "window must be a number, got True"),
        ({"intra_op_threads": 2.0}, "intra_op_threads must be a whole number"),
        ({"intra_op_threads": -1}, "intra_op_threads must be 0 to 256"),
        ({"backend": "cuda"}, "backend must be one of auto, onnxruntime, tensorrt, got 'cuda'"),
        ({"precision": "half"}, "precision must be one of auto, fp32, fp16, int8, got 'half'"),
        ({"allow_fallback": True}, "allow_fallback must be one of auto, always, never, got True"),
        ({"build_in_background": "yes"}, "build_in_background must be true or false, got 'yes'"),
        ({"image_transport": "theora"}, "image_transport must be one of raw, compressed"),
        ({"image_reliability": ""}, "image_reliability must be one of"),
        ({"model": ""}, "model must not be empty"),
        ({"model": 3}, "model must be a text, got 3"),
        ({"diagnostics_period": 0.0}, "diagnostics_period must be 0.1 to 60 s"),
        ({"selection_tolerance": -1.0}, "selection_tolerance must be 0 to 10 s, got -1"),
        ({"nonsense": 1}, "there is no parameter nonsense"),
        ({"presence_found": 0.2, "presence_lost": 0.4}, "presence_lost = 0.4 must not be above"),
    ],
)
def test_what_cannot_be_is_said(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as error:
        read_parameters(values)
    assert words in str(error.value)


def test_no_cache_folder_is_the_users() -> None:
    assert read_parameters({"cache_dir": ""}).cache_dir == ""


@pytest.mark.parametrize(
    ("backend", "allow", "may"),
    [
        ("auto", "auto", True),
        ("tensorrt", "auto", False),
        ("tensorrt", "always", True),
        ("auto", "never", False),
    ],
)
def test_when_onnx_runtime_may_stand_in(backend: str, allow: str, may: bool) -> None:
    assert TrackerParameters(backend=backend, allow_fallback=allow).may_fall_back is may


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ParameterError) as error:
        read_parameters({"window": 7, "backend": "cpu", "size_rate": 0.5})
    assert len(error.value.problems) == 2


def test_thresholds_are_judged_with_those_of_the_model() -> None:
    bundle = fake_bundle(presence=PresenceSpec(found=0.6, lost=0.3))
    assert read_parameters({"presence_lost": 0.7}).presence_lost == 0.7
    with pytest.raises(ParameterError, match=r"presence_lost = 0\.7 .* \(the model fake gives"):
        read_parameters({"presence_lost": 0.7}, bundle)
    assert read_parameters({"presence_lost": 0.7, "presence_found": 0.8}, bundle)


def test_every_run_time_value_of_the_tracker_reaches_it() -> None:
    parameters = TrackerParameters(
        presence_found=0.9,
        presence_lost=0.2,
        window=0.1,
        penalty=0.2,
        size_rate=0.3,
        redetect_budget_ms=4.0,
        give_up_after=5.0,
    )
    assert parameters.tracker_settings() == TrackerSettings(
        found=0.9,
        lost=0.2,
        window=0.1,
        penalty=0.2,
        size_rate=0.3,
        redetect_budget_ms=4.0,
        give_up_after=5.0,
    )
    untouched = TrackerParameters().tracker_settings()
    assert replace(parameters, window=-1.0).tracker_settings().window is untouched.window is None


def test_the_table_has_every_parameter_and_needs_no_ros() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "siam_tracker_ros.nodes.parameters"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},  # nothing of ROS
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed.strip() == as_markdown()
    assert [line.split("`")[1] for line in printed.splitlines()[2:]] == list(SPECS)
    assert list(SPECS) == [field.name for field in fields(TrackerParameters)]
    assert all("|" not in spec.description for spec in SPECS.values())


def test_the_shipped_file_says_the_defaults() -> None:
    """config/tracker.yaml shows every parameter with its default, so that it can be copied."""
    shipped = yaml.safe_load((ROOT / "config" / "tracker.yaml").read_text(encoding="utf-8"))
    assert shipped["/**"]["ros__parameters"] == DEFAULTS


def test_the_nodes_page_has_the_table() -> None:
    """Made by: python -m siam_tracker_ros.nodes.parameters."""
    page = (ROOT / "docs" / "tracker_node.md").read_text(encoding="utf-8")
    assert as_markdown() in page


def test_what_concerns_selections_reaches_them() -> None:
    parameters = read_parameters(
        {"selection_tolerance": 0.2, "stale_selection": "oldest", "catch_up_budget_ms": 250}
    )
    rules = parameters.selection_rules()
    assert (rules.tolerance, rules.stale, rules.catch_up_budget) == (0.2, "oldest", 0.25)
