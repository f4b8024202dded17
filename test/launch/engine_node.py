#!/usr/bin/env python3
"""tracker_node as on a machine with a GPU and TensorRT: stand-ins that compute, builds in real processes.

The file that FAKE_BEHAVIOUR_FILE names says what the next build does (test/inference/fake_tensorrt.py).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from siam_tracker_ros.inference import building
from siam_tracker_ros.nodes.tracker_node import main

STAND_INS = str(Path(__file__).resolve().parents[1] / "inference")

_environment = building._environment


def environment() -> dict[str, str]:
    given = _environment()
    behaviour = Path(os.environ["FAKE_BEHAVIOUR_FILE"]).read_text(encoding="utf-8")
    path = f"{given['PYTHONPATH']}{os.pathsep}{STAND_INS}"
    return {**given, "FAKE_BEHAVIOUR": behaviour, "PYTHONPATH": path}


if __name__ == "__main__":
    sys.path.insert(0, STAND_INS)
    import fake_build_child

    fake_build_child.install()
    building.MODULE, building._environment = "fake_build_child", environment
    sys.exit(main())
