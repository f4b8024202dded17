"""The memory of constant size against the whole past: properties 4 to 6 of STMTrack's specification."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from siam_tracker_ros.networks import feature_bank as bank
from siam_tracker_ros.networks.feature_bank import BankIndex

SETS = {
    1: {1},
    3: {1, 2, 3},
    5: {1, 2, 3, 4, 5},
    6: {1, 2, 3, 4, 6},
    7: {1, 2, 3, 4, 7},
    8: {1, 2, 4, 6, 8},
    12: {1, 2, 5, 8, 11, 12},
    20: {1, 3, 8, 13, 18, 20},
    39: {1, 5, 14, 23, 32, 39},
    40: {1, 5, 16, 26, 35, 40},
    100: {1, 13, 37, 63, 89, 100},
    1000: {1, 129, 385, 641, 865, 1000},
    2000: {1, 257, 769, 1281, 1729, 2000},
}
YES, NO = torch.tensor([True]), torch.tensor([False])


def wanted(n: int) -> list[int]:
    """The frames of the published rule beside the last one, in Python's integers."""
    if n <= 5:
        return list(range(1, n + 1))
    return [1, *(i * (n // 4) + n // 4 // 2 + 1 for i in range(4))]


def chosen(index: BankIndex, written: torch.Tensor, selection: bank.Selection) -> list[int]:
    """Frame numbers that a selection reads."""
    carried = torch.where(written, torch.zeros_like(index.ids), index.ids)
    ids = [1, *carried.tolist(), int(index.count)]
    frames = [1, *(ids[int(slot)] for slot in selection.slots), ids[-1]]
    return [f for f, used in zip(frames, selection.mask.tolist(), strict=True) if used]


def test_selected_sets():
    index = bank.empty_index(32)
    for n in range(1, 2001):
        index, written = bank.advance(index)
        if n in SETS:
            frames = chosen(index, written, bank.select(index, written, 6, YES))
            assert set(frames) == SETS[n]
            assert len(frames) == len(SETS[n])
        if n in (1000, 2000):
            assert int(index.stride) == {1000: 32, 2000: 64}[n]
    assert index.ids.dtype == index.count.dtype == index.stride.dtype == torch.int32


def test_an_unbelieved_last_frame_is_not_read_beyond_five():
    index = bank.empty_index(32)
    for n in range(1, 101):
        index, written = bank.advance(index)
        frames = chosen(index, written, bank.select(index, written, 6, NO))
        if n <= 5:
            assert set(frames) == set(range(1, n + 1))
        elif n == 8:
            assert set(frames) == {1, 2, 4, 6, 8}  # it is the middle of a segment as well
        elif n in SETS:
            assert set(frames) == SETS[n] - {n}
        assert len(frames) == len(set(frames)) <= 5


@pytest.mark.parametrize("slots", [8, 16, 32])
def test_wanted_frames_lie_in_their_segments_and_never_ahead(slots):
    for n in (6, 7, 100, 101, 99_999):
        frames = bank.wanted_frames(torch.tensor([n], dtype=torch.int32), 6).tolist()
        assert frames == wanted(n)
        assert max(frames) <= n
    # The paper's printed formula, for the record: beyond the present at t = 101.
    assert [(100 // 4) * (2 * i + 1) // 2 for i in range(1, 5)] == [37, 62, 87, 112]


def test_against_an_unbounded_reference():
    """4 channels, 10,000 frames: what is read is some frame's very feature, and near enough the one that is meant."""
    slots = 32
    generator = torch.Generator().manual_seed(0)
    every = torch.randn(10_000, 4, 2, 2, generator=generator)
    index = bank.empty_index(slots)
    kept = torch.full((slots - 1, 4, 2, 2), float("nan"))  # rubbish must never be read
    first = every[:1]
    deviations = []
    for n in range(1, 10_001):
        last = every[n - 1 : n]
        index, written = bank.advance(index)
        selection = bank.select(index, written, 6, YES)
        features = bank.read(kept, first, last, selection)
        kept = bank.write(kept, written, last)
        assert features.shape == (6, 4, 2, 2)
        assert torch.isfinite(features).all()
        frames = chosen(index, written, selection)
        used = features[selection.mask]
        assert torch.equal(used, every[torch.tensor(frames) - 1])
        assert frames[0] == 1
        assert frames[-1] == n  # the last frame is always there, whether as itself or as a middle
        if n <= 39:
            assert set(frames) == {*wanted(n), n}
        else:
            stored = [1, *index.ids.tolist(), n]
            for tau in wanted(n)[1:]:
                nearest = min(abs(i - tau) for i in stored if i > 0)
                assert nearest == min(abs(f - tau) for f in frames)
                deviations.append(nearest / (n // 4))
    assert max(deviations) == pytest.approx(0.106, abs=0.01)
    assert np.mean(deviations) == pytest.approx(0.033, abs=0.005)
    held = index.ids > 0
    assert torch.equal(kept[held], every[(index.ids[held] - 1).long()])


class _Index(nn.Module):
    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, ids, count, stride):
        index, written = bank.advance(BankIndex(ids, count, stride))
        selection = bank.select(index, written, self.frames, count >= 0)
        return (*index, written, *selection)


def exported(slots: int) -> tuple[onnx.ModelProto, onnxruntime.InferenceSession]:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Index(6), tuple(bank.empty_index(slots)), buffer, opset_version=17, dynamo=False,
            input_names=["ids", "count", "stride"],
            output_names=["ids.next", "count.next", "stride.next", "written", "slots", "mask"],
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        buffer.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load_from_string(buffer.getvalue()), session


def test_integer_division_stays_integer_in_the_graph():
    model, _ = exported(32)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {
        v.name: v.type.tensor_type.elem_type
        for v in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    kinds |= {t.name: t.data_type for t in inferred.initializer}
    kinds |= {
        n.output[0]: n.attribute[0].t.data_type for n in inferred.node if n.op_type == "Constant"
    }
    division = [n for n in inferred.node if n.op_type == "Div"]
    assert len(division) >= 4
    integer = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    assert all(kinds[name] in integer for node in division for name in node.input)
    assert not {n.op_type for n in inferred.node} & {"Mod", "Floor", "ArgMax", "ArgMin", "TopK"}


@pytest.mark.parametrize("slots", [8, 16, 32])
def test_index_arithmetic_over_100_000_steps(slots):
    """In ONNX Runtime, on the exported graph: slots stay distinct, hold the grid, and deviate at most s/2."""
    _, session = exported(slots)
    names = ["ids.next", "count.next", "stride.next", "slots", "mask"]
    steps = 100_000 if slots == 32 else 20_000
    state = [t.numpy() for t in bank.empty_index(slots)]
    ids = np.zeros((steps, slots - 1), np.int32)
    stride = np.zeros(steps, np.int32)
    picked = np.zeros((steps, 4), np.float32)
    valid = np.zeros((steps, 6), bool)
    for n in range(steps):
        feed = dict(zip(("ids", "count", "stride"), state, strict=True))
        *state, picked[n], valid[n] = session.run(names, feed)
        ids[n], stride[n] = state[0], state[2][0]
        assert state[1][0] == n + 1
    n = np.arange(1, steps + 1)
    held = np.concatenate([np.ones((steps, 1), np.int32), ids], 1)
    ordered = np.sort(held, 1)
    assert ((ordered[:, 1:] > ordered[:, :-1]) | (ordered[:, :-1] == 0)).all()
    assert (held <= n[:, None]).all()
    assert (stride & (stride - 1) == 0).all()
    assert ((n - 1) // stride + 1 <= slots).all()
    for at in [*range(0, 2000, 7), *range(2000, steps, 997)]:
        grid = set(range(1, n[at] + 1, stride[at]))
        assert grid <= set(held[at].tolist())
    # Nearest of slots and last frame to each middle, n > 5.
    segment = n // 4
    for i in range(4):
        tau = i * segment + segment // 2 + 1
        there = np.concatenate([held, n[:, None]], 1)
        away = np.where(there > 0, np.abs(there - tau[:, None]), 2**30).min(1)
        assert (away <= stride / 2)[5:].all()
        limit = {8: 0.5, 16: 0.206, 32: 0.106}[slots]
        assert (away / np.maximum(segment, 1))[5:].max() <= limit + 0.001
    assert valid[:, 0].all()
    assert ((picked >= 0) & (picked <= slots)).all()


def test_counters_are_exact_far_beyond_what_a_float_can_count():
    """Steps around 2^29 frames (103 days at 60 frames a second) against Python's integers."""
    _, session = exported(32)
    s = 2**25
    n = 2**29 + 12_345
    held = [1 + s * k for k in range(1, 17)]
    ids = np.array([*held, *(h + s // 2 for h in held[:15])], np.int32)
    count, stride = np.array([n - 1], np.int32), np.array([s], np.int32)
    got = session.run(None, {"ids": ids, "count": count, "stride": stride})
    assert got[1].tolist() == [n] and got[2].tolist() == [s]
    assert got[0].tolist() == ids.tolist()  # n is not on the grid
    there = [1, *ids.tolist(), n]
    expected = [min(range(33), key=lambda k: (abs(there[k] - tau), k)) for tau in wanted(n)[1:]]
    assert got[4].tolist() == expected

    at = 1 + 17 * s
    got = session.run(None, {"ids": ids, "count": np.array([at - 1], np.int32), "stride": stride})
    assert got[0].tolist() == [*ids[:16], at, *ids[17:]]  # the first one off the grid makes room
