#!/usr/bin/env python3
"""tracker_node with a session that looks for one colour: everything is real but the network.

The environment variable FAKE_MODEL says how it shall behave: ``slow`` (200 ms a step), ``refuse``
(opening fails), ``hang`` (opening takes 3 s), otherwise it works.
"""

from __future__ import annotations

import os
import sys
import time

from siam_tracker_ros.bundle import Bundle, BundleError, StepResult
from siam_tracker_ros.nodes.model_session import Opening, open_model
from siam_tracker_ros.nodes.parameters import TrackerParameters
from siam_tracker_ros.nodes.tracker_node import main
from siam_tracker_ros.tracking import ColourFinder, FakeSession, fake_bundle

ORANGE = (230, 120, 30)


def fake_model(parameters: TrackerParameters, opening: Opening) -> tuple[Bundle, FakeSession]:
    mode = os.environ.get("FAKE_MODEL", "")
    if parameters.model not in ("fake", "slow", "hang"):
        return open_model(parameters, opening)  # type: ignore[return-value]
    if mode == "refuse":
        raise BundleError("fake/bundle.yaml: crop.search: missing")
    if parameters.model == "hang":
        time.sleep(3.0)
    find = ColourFinder(ORANGE)

    def slowly(search, size) -> StepResult:  # type: ignore[no-untyped-def]
        time.sleep(0.2)
        return find(search, size)

    return fake_bundle(), FakeSession(slowly if parameters.model == "slow" else find)


if __name__ == "__main__":
    sys.exit(main(open_model=fake_model))
