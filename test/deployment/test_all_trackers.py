"""Every tracker that ships a configuration, as a robot runs it: exported, in ONNX Runtime, on real frames."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from siam_tracker_ros.bundle import Bundle, Memory, PresenceSpec, write_bundle
from siam_tracker_ros.deployment.torch_session import TorchSession
from siam_tracker_ros.evaluation.synthetic import synthetic_sequence
from siam_tracker_ros.geometry import ArrayPicture, Box
from siam_tracker_ros.inference import open_session
from siam_tracker_ros.networks.build import TRACKERS
from siam_tracker_ros.networks.tracker_network import TrackerNetwork
from siam_tracker_ros.tracking import Tracker, TrackerSettings

FOLLOW_ALWAYS = TrackerSettings(found=0.0, lost=0.0)


@pytest.fixture(scope="module", params=list(TRACKERS))
def network(request: Any, light_tracker: Any) -> TrackerNetwork:
    return light_tracker(request.param)[0]


@pytest.fixture(scope="module")
def bundle(network: TrackerNetwork, light_tracker: Any, tmp_path_factory: Any) -> Bundle:
    graphs = light_tracker(network.config.tracker)[1]
    name = network.config.tracker
    return write_bundle(
        tmp_path_factory.mktemp("models") / name,
        name=name,
        tracker=name,
        crop=network.config.crop,
        graphs={key: graph.spec for key, graph in graphs.items()},
        tuning=network.default_tuning,
        presence=PresenceSpec(),
        contents={graph.spec.file: graph.data for graph in graphs.values()},
    )


def crop(seed: int, side: int) -> np.ndarray:
    """Blobs, uint8 [side,side,3]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return np.ascontiguousarray((fine[0].permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy())


def run(session: Any, bundle: Bundle, seed: int, frames: int) -> Iterator[tuple[float, ...]]:
    """Yield the numbers of ``start`` and of ``frames`` steps; every other step is committed."""
    side, size = bundle.crop.search, (60.0, 44.0)
    result = session.start(crop(seed, bundle.crop.template), crop(seed + 1, side), size)
    yield (*result.box, result.score, result.runner_up, *result.peak)
    for index in range(frames):
        picture = crop(1000 * seed + index, side)
        memory = Memory(crop(seed + index, side), size) if bundle.reads_memory else None
        result = session.step(picture, size, memory)
        yield (*result.box, result.score, result.runner_up, *result.peak)
        if index % 2:
            session.commit()


def test_onnx_runtime_answers_as_torch_does(network, bundle):
    torch_session = TorchSession(network, bundle.tuning)
    onnx_session = open_session(bundle, "onnxruntime", intra_op_threads=1)
    pairs = zip(run(torch_session, bundle, 1, 24), run(onnx_session, bundle, 1, 24), strict=True)
    differences = [np.abs(np.subtract(a, b)) for a, b in pairs]
    # Near ties of the arg-max may fall either way; all else is rounding.
    assert np.median([d.max() for d in differences]) < 1e-3
    assert np.mean([d.max() < 1e-3 for d in differences]) > 0.8


def test_two_sessions_do_not_influence_each_other(bundle):
    alone = []
    for seed in (1, 2):
        session = open_session(bundle, "onnxruntime", intra_op_threads=1)
        alone.append(list(run(session, bundle, seed, 8)))
        session.close()
    sessions = [open_session(bundle, "onnxruntime", intra_op_threads=1) for _ in range(2)]
    mixed = zip(*(run(s, bundle, n, 8) for s, n in zip(sessions, (1, 2), strict=True)), strict=True)
    assert list(mixed) == list(zip(*alone, strict=True))


def test_a_new_start_forgets_everything(bundle):
    session = open_session(bundle, "onnxruntime", intra_op_threads=1)
    first = list(run(session, bundle, 1, 8))
    list(run(session, bundle, 2, 8))
    assert list(run(session, bundle, 1, 8)) == first


def test_it_follows_a_clip_frame_by_frame(network, bundle):
    """A tracker on the session gets through a clip, and its state commits: memory crops and all."""
    clip = synthetic_sequence(320, 240, 12)
    session = open_session(bundle, "onnxruntime", intra_op_threads=1)
    tracker = Tracker(bundle, session, FOLLOW_ALWAYS)
    for index, frame in enumerate(clip):
        picture = ArrayPicture(frame, "bgr")
        if index:
            result = tracker.update(picture)
            assert result.box is not None and result.box.is_finite()
            assert 0 <= result.score <= 1
        else:
            tracker.initialize(picture, Box.from_xywh(*clip.boxes[0]))


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.slow
def test_selecting_a_thousand_times_leaks_nothing(bundle):
    clip = synthetic_sequence(320, 240, 2)
    pictures = [ArrayPicture(frame, "bgr") for frame in clip]
    session = open_session(bundle, "onnxruntime", intra_op_threads=1)
    tracker = Tracker(bundle, session, FOLLOW_ALWAYS)

    def select(times: int) -> None:
        for _ in range(times):
            tracker.initialize(pictures[0], Box.from_xywh(*clip.boxes[0]))
            tracker.update(pictures[1])

    select(50)
    gc.collect()
    before = resident_kib()
    select(1000)
    gc.collect()
    assert resident_kib() - before < 8 * 1024
