"""STMTrack's memory of constant size: which frames are kept and which are read. Pure functions, state -> state.

The published code keeps the feature of every frame, 38 MB a second. What it reads of them are the
first frame, the last one and the middles of N - 2 equal segments between (equation 5), so frames on
a grid whose stride doubles whenever the slots are full are enough: with 32 slots a frame read is at
most 10.6 % of a segment away from the one that is meant, however long the track.

Frame numbers begin at 1 and count the frames that were committed. Frame 1 is on every grid and
never leaves, so its feature is not among the slots that are rewritten: ``slots - 1`` features are
carried, and the first one's is a constant of the track. All numbers of frames are INT32 and only
added, divided and compared: exact for 2^30 frames (207 days at 60 frames a second). What selects
slots are small floats, exact in FP16 too; there is no arg-min over INT32, which TensorRT before 10
computes in FP32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_FAR = 2**30
"""Distance of an empty slot from any frame."""


class BankIndex(NamedTuple):
    """Which frames the carried slots hold.

    Attributes:
        ids: ``[M-1]`` INT32 frame number of each carried slot, 0 = empty.
        count: ``[1]`` INT32 frames so far, n.
        stride: ``[1]`` INT32 distance of the frames that are kept, s, a power of two.
    """

    ids: Tensor
    count: Tensor
    stride: Tensor


class Selection(NamedTuple):
    """Which features are read.

    Attributes:
        slots: ``[N-2]`` FP32 where the features between first and last frame are: 0 the first
            frame's, 1..M-1 carried slots, M the feature of the last frame.
        mask: ``[N]`` bool, which of (first, those between, last) are read; each frame once.
    """

    slots: Tensor
    mask: Tensor


def empty_index(slots: int) -> BankIndex:
    """Before the first frame; ``slots`` is M, the first frame's included."""
    return BankIndex(
        torch.zeros(slots - 1, dtype=torch.int32),
        torch.zeros(1, dtype=torch.int32),
        torch.ones(1, dtype=torch.int32),
    )


def advance(index: BankIndex) -> tuple[BankIndex, Tensor]:
    """Count one more frame and say where its feature goes.

    A frame is kept if it is on the grid 1, 1+s, 1+2s, ...; it takes the first empty slot, or else
    the first one whose frame is off the grid. There always is one, as M frames of the grid fit.

    Returns:
        The new index, and ``[M-1]`` bool: the slot that takes the feature (none if it is not kept,
        nor for frame 1).
    """
    carried = index.ids.shape[0]
    count = index.count + 1
    full = _quotient(count - 1, index.stride) + 1 > carried + 1
    stride = torch.where(full, index.stride * 2, index.stride)
    off_grid = torch.where(_off_grid(index.ids, stride), 1.0, 0.0)
    urgency = torch.where(index.ids == 0, torch.full_like(off_grid, 2.0), off_grid)
    # The first of the most urgent: ranks are all different.
    order = torch.arange(carried, dtype=torch.float32, device=index.ids.device)
    rank = urgency * carried - order
    kept = torch.logical_and(count > 1, torch.logical_not(_off_grid(count, stride)))
    written = torch.logical_and(rank == rank.max(), kept)
    return BankIndex(torch.where(written, count, index.ids), count, stride), written


def write(bank: Tensor, written: Tensor, feature: Tensor) -> Tensor:
    """Put ``feature [1,C,S,S]`` into the slot of ``bank [M-1,C,S,S]`` that ``written [M-1]`` marks."""
    return torch.where(written.view(-1, 1, 1, 1), feature, bank)


def select(index: BankIndex, written: Tensor, frames: int, read_last: Tensor) -> Selection:
    """Choose up to N = ``frames`` features to read (equation 5, corrected; see :func:`wanted_frames`).

    Each wanted frame is stood for by the nearest one that is there, the first of two equally near.

    Args:
        index: as :func:`advance` returns it.
        written: likewise.
        frames: N.
        read_last: ``[1]`` bool, whether the last frame may be read once there are N of them.
    """
    count = index.count
    slots = index.ids.shape[0] + 1
    wanted = wanted_frames(count, frames)
    # The last frame's feature counts as slot M, also where it was just written into another.
    carried = torch.where(written, torch.zeros_like(index.ids), index.ids)
    ids = torch.cat([torch.ones_like(count), carried, count])
    away = torch.maximum(ids - wanted[:, None], wanted[:, None] - ids)
    away = torch.where(ids > 0, away, torch.full_like(away, _FAR))
    order = torch.arange(slots + 1, device=ids.device)
    nearer = away[:, None, :] < away[:, :, None]
    as_near = torch.logical_and(
        away[:, None, :] == away[:, :, None], order[None, :] < order[:, None]
    )
    beaten = torch.logical_or(nearer, as_near).float().sum(-1)  # [N-1,M+1]
    slot = ((beaten < 0.5).float() * order.float()).sum(-1)  # [N-1]
    few = count < frames
    last = torch.where(count > 1, float(slots), 0.0)
    slot = torch.cat([slot, last])
    valid = torch.cat([wanted <= count, torch.logical_or(few, read_last)])
    # Empty slots hold anything; what is not read points at the first frame.
    slot = torch.where(valid, slot, torch.zeros_like(slot))
    place = torch.arange(frames, device=ids.device)
    same = torch.logical_and(slot[:, None] == slot[None, :], valid[None, :])
    earlier = torch.logical_and(same, place[None, :] < place[:, None])
    repeated = earlier.float().sum(-1) > 0.5
    return Selection(slot[1:-1], torch.logical_and(valid, torch.logical_not(repeated)))


def wanted_frames(count: Tensor, frames: int) -> Tensor:
    """Frames to read beside the last one: ``[N-1]`` INT32, ascending from 1.

    Up to n = N - 1 all of them (numbers above n are not there yet); then frame 1 and
    ``tau_i = i D + floor(D/2) + 1``, D = floor(n / (N-2)), i = 0..N-3. The paper prints
    ``floor(floor((t-1)/(N-2)) (i + 1/2))`` for i from 1 on, which lies beyond the present frame at
    the end (t = 101: 112); this is what its code reads.
    """
    every = torch.arange(1, frames, dtype=torch.int32, device=count.device)
    segment = _quotient(count, frames - 2)
    later = (every - 2) * segment + _quotient(segment, 2) + 1
    middles = torch.where(every < 2, every, later)
    return torch.where(count < frames, every, middles)


def read(bank: Tensor, first: Tensor, last: Tensor, selection: Selection) -> Tensor:
    """Gather the selected features ``[N,C,S,S]``: first frame, those between, last frame.

    From the bank as it was before :func:`write`, so that the two do not wait for each other.

    Args:
        bank: ``[M-1,C,S,S]``.
        first: ``[1,C,S,S]`` feature of frame 1.
        last: ``[1,C,S,S]`` feature of frame n.
        selection: from :func:`select`.
    """
    carried = bank.shape[0]
    slots = selection.slots
    index = (slots - 1).clamp(0, carried - 1).to(torch.int32)
    between = torch.index_select(bank, 0, index)
    slots = slots.view(-1, 1, 1, 1)
    between = torch.where(slots < 0.5, first, between)
    between = torch.where(slots > carried + 0.5, last, between)
    return torch.cat([first, between, last])


def _quotient(value: Tensor, divisor: Tensor | int) -> Tensor:
    """Integer division of numbers that are not negative; it stays one in an exported graph."""
    if isinstance(divisor, int):
        divisor = torch.full_like(value, divisor)
    return torch.div(value, divisor, rounding_mode="trunc").to(value.dtype)


def _off_grid(ids: Tensor, stride: Tensor) -> Tensor:
    """Tell which frames are not on the grid 1, 1+s, ... (0, an empty slot, gives an arbitrary answer)."""
    steps = torch.maximum(ids - 1, torch.zeros_like(ids))
    return _quotient(steps, stride) * stride != steps
