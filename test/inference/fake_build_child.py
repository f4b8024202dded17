"""The build process on a machine with stand-ins for driver and TensorRT.

What they do is told by the environment: FAKE_VERSION, and FAKE_BEHAVIOUR (JSON, the fields of
``fake_tensorrt.Behaviour``).
"""

from __future__ import annotations

import json
import os
import sys

from fake_cuda import FakeCuda
from fake_tensorrt import Behaviour, make_tensorrt

from siam_tracker_ros.inference import build_process, cuda


def install():
    driver = FakeCuda()
    cuda.load_library = lambda: driver
    behaviour = Behaviour(**json.loads(os.environ.get("FAKE_BEHAVIOUR", "{}")))
    version = os.environ.get("FAKE_VERSION", "10.3.0")
    sys.modules["tensorrt"] = make_tensorrt(version, driver, behaviour)


if __name__ == "__main__":
    install()
    build_process.HEARTBEAT_S = 0.2
    print("TensorRT prints what it likes", flush=True)
    os._exit(build_process.main())
