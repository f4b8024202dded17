"""From maps to boxes: cells and pixels, penalty and window."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from siam_tracker_ros.networks.decode import (
    CenterMaps,
    decode_boxes,
    decode_sizes,
    hann_window,
    size_penalty,
)
from siam_tracker_ros.networks.grid import Grid

PAPER_GRID = Grid(25, 255)


def maps_of(cells: int) -> CenterMaps:
    return CenterMaps(
        torch.zeros(1, 1, cells, cells),
        torch.full((1, 2, cells, cells), 0.5),
        torch.full((1, 2, cells, cells), 8.0),
    )


@pytest.mark.parametrize(
    ("cells", "crop", "first", "last"),
    [
        (25, 255, 31, 223),
        (29, 255, 15, 239),
        (25, 289, 48, 240),
        (19, 271, 63, 207),
        (25, 257, 32, 224),
    ],
)
def test_cell_centres(cells, crop, first, last):
    centers = Grid(cells, crop).centers()
    assert centers[0] == first
    assert centers[-1] == last
    assert centers[cells // 2] == (crop - 1) / 2
    assert torch.equal(centers.diff(), torch.full((cells - 1,), 8.0))


def test_response_cell_is_the_middle_of_its_window():
    # ResNet's feature i is centred on 7 + 8 i, a light net's on 8 i; cell i correlates features i .. i + k - 1.
    for grid, first_feature, kernel in ((PAPER_GRID, 7, 7), (Grid(25, 257), 0, 9)):
        for i in (0, 11, 24):
            assert grid.centers()[i] == first_feature + 8 * (i + kernel // 2)


def encode(px: float, grid: Grid) -> tuple[int, float]:
    cell = math.floor((px - grid.origin) / 8)
    return cell, (px - grid.origin) / 8 - cell


@pytest.mark.parametrize(
    ("px", "cell", "offset"),
    [((127, 127), (12, 12), (0.5, 0.5)), ((140, 110), (14, 10), (0.125, 0.375))],
)
def test_examples_of_cell_and_offset(px, cell, offset):
    for value, u, o in zip(px, cell, offset, strict=True):
        assert encode(value, PAPER_GRID) == (u, o)


def test_decoding_undoes_encoding():
    maps = maps_of(25)
    generator = np.random.default_rng(0)
    for x, y in [(27.0, 226.999), *generator.uniform(27, 227, (50, 2))]:
        (column, ox), (row, oy) = encode(x, PAPER_GRID), encode(y, PAPER_GRID)
        maps.offset[0, 0, row, column], maps.offset[0, 1, row, column] = ox, oy
        box = decode_boxes(maps, PAPER_GRID, "linear")[0, :, row, column]
        assert box.tolist() == pytest.approx([x, y, 64, 64], abs=1e-4)


def test_middle_cell_decodes_to_the_middle_and_one_cell_is_8_pixels():
    for grid in (PAPER_GRID, Grid(25, 257), Grid(17, 257)):
        boxes = decode_boxes(maps_of(grid.cells), grid, "linear")[0]
        mid = grid.cells // 2
        assert boxes[:2, mid, mid].tolist() == [(grid.crop - 1) / 2] * 2
        assert (boxes[:, mid, mid + 1] - boxes[:, mid, mid]).tolist() == [8, 0, 0, 0]
        assert (boxes[:, mid + 1, mid] - boxes[:, mid, mid]).tolist() == [0, 8, 0, 0]


def test_size_codings():
    linear = torch.tensor([8.0, 2.5]).view(1, 2, 1, 1)
    assert decode_sizes(linear, "linear").flatten().tolist() == [64, 20]
    log = torch.tensor([0.0, math.log(2)]).view(1, 2, 1, 1)
    assert decode_sizes(log, "log").flatten().tolist() == pytest.approx([64, 128], rel=1e-6)
    wild = torch.tensor([1e6, -1e6]).view(1, 2, 1, 1)
    assert torch.isfinite(decode_sizes(wild, "log")).all()


PENALTIES = [
    ((64, 64), (1, 1, 1)),
    ((80, 64), (0.983967, 0.979999, 0.969787)),
    ((128, 128), (0.960789, 0.951229, 0.926887)),
    ((64, 32), (0.934093, 0.918306, 0.878613)),
]


@pytest.mark.parametrize(("size", "expected"), PENALTIES)
def test_penalty_values(size, expected):
    w, h = torch.tensor([float(size[0])]), torch.tensor([float(size[1])])
    previous = torch.tensor([64.0, 64.0])
    for strength, value in zip((0.04, 0.05, 0.0759232), expected, strict=True):
        assert float(size_penalty(w, h, previous, strength)) == pytest.approx(value, abs=1e-6)


def test_penalty_does_not_care_which_size_was_first():
    a, b = torch.tensor([70.0, 31.0]), torch.tensor([45.0, 90.0])
    forward = size_penalty(a[:1], a[1:], b, 0.1)
    backward = size_penalty(b[:1], b[1:], a, 0.1)
    assert float(forward) == pytest.approx(float(backward), rel=1e-6)
    assert float(forward) < 1


@pytest.mark.parametrize(("cells", "second"), [(25, 0.0170371), (29, 0.0125360), (19, 0.0301537)])
def test_window(cells, second):
    window = hann_window(cells)
    mid = cells // 2
    assert window[mid, 1] == pytest.approx(second, abs=1e-6)
    assert window[mid, mid] == pytest.approx(1.0, abs=1e-6) and window.argmax() == mid * cells + mid
    for other in (window.flip(0), window.flip(1), window.T):
        assert torch.allclose(window, other, atol=1e-6)
    assert window[0].abs().max() == 0 and window[:, -1].abs().max() < 1e-6
