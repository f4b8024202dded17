"""ARM at test time: section 8 of SiamSTM's specification, properties 7, 8, 10 and 11."""

from __future__ import annotations

import pytest
import torch

from siam_tracker_ros.networks.config import ResponseArmConfig
from siam_tracker_ros.networks.response_arm import (
    ArmState,
    gaussian_label,
    gaussian_sigma,
    kl_to_product,
    repress_aberrance,
    shift_indices,
)

SIGMA = torch.tensor(5 / 6)


def hill(row: float, column: float, cells: int = 7, sigma: torch.Tensor = SIGMA) -> torch.Tensor:
    return gaussian_label(torch.tensor(float(row)), torch.tensor(float(column)), sigma, cells)


def state(heatmap: torch.Tensor, row: int, column: int) -> ArmState:
    label = hill(row, column, heatmap.shape[-1])
    return ArmState(heatmap, label, torch.tensor([float(row), float(column)]))


def scene(generator: torch.Generator, cells: int = 25) -> torch.Tensor:
    """A heatmap with several hills of different heights and no ties."""
    heat = 0.02 + 1e-3 * torch.rand(cells, cells, generator=generator)
    for height in (0.8, 0.5, 0.35):
        row, column = (int(torch.randint(3, cells - 3, (1,), generator=generator)) for _ in "rc")
        heat = torch.maximum(heat, height * hill(row, column, cells))
    return heat


# --- shifts -----------------------------------------------------------------------------------------------------------


def roll(matrix: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    cells = matrix.shape[-1]
    return matrix.flatten()[shift_indices(shifts, cells)].view(-1, cells, cells)


def test_example_of_the_circular_shift():
    matrix = torch.arange(9).view(3, 3)
    rolled = roll(matrix, torch.tensor([[1, -1]]))[0]
    assert rolled.tolist() == [[7, 8, 6], [1, 2, 0], [4, 5, 3]]


def test_gather_equals_torch_roll_for_every_shift():
    matrix = torch.rand(25, 25)
    steps = torch.arange(-24, 25)
    shifts = torch.cartesian_prod(steps, steps)
    assert len(shifts) == 49 * 49
    for shift, rolled in zip(shifts.tolist(), roll(matrix, shifts), strict=True):
        assert torch.equal(rolled, torch.roll(matrix, shift, (0, 1)))


def test_shifts_add_up_and_lose_nothing():
    matrix = torch.rand(25, 25)
    a, b = torch.tensor([[20, -3]]), torch.tensor([[-7, 9]])
    assert torch.equal(roll(roll(matrix, a)[0], b)[0], roll(matrix, a + b)[0])
    assert torch.equal(roll(matrix, a)[0].flatten().sort()[0], matrix.flatten().sort()[0])


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "w", "sigma"), [(8, 8, 0.8333), (4, 16, 0.5), (12, 6, 0.8333)])
def test_width_of_the_label(h, w, sigma):
    got = gaussian_sigma(torch.tensor([8.0 * w]), torch.tensor([8.0 * h]))
    assert float(got) == pytest.approx(sigma, abs=1e-4)


def test_tiny_target_still_has_a_label():
    assert float(gaussian_sigma(torch.tensor([1.0]), torch.tensor([1.0]))) == pytest.approx(1 / 6)


def test_label_is_one_at_exactly_its_cell():
    label = hill(7, 20, 25)
    assert (label == 1).nonzero().tolist() == [[7, 20]]


# --- the criterion ----------------------------------------------------------------------------------------------------


def test_divergence_of_a_distribution_from_itself_is_zero():
    label = hill(3, 3).flatten()
    assert float(kl_to_product(label, label.square().clamp(min=1e-30))) == pytest.approx(
        0, abs=1e-6
    )


def test_history_acts_only_through_the_sum_of_the_product():
    """L_k = const + ln C_k - sum P_k ln B, const the same for every k (exact)."""
    generator = torch.Generator().manual_seed(3)
    history, now = scene(generator), scene(generator)
    label = hill(12, 12, 25)
    source = shift_indices(torch.tensor([[0, 0], [3, -8], [-11, 5], [24, 24]]), 25)
    labels, histories = label.flatten()[source].double(), history.flatten()[source].double()
    current = now.flatten().double()
    losses = kl_to_product(labels, histories * current)
    p = labels.square() / labels.square().sum(-1, keepdim=True)
    rest = torch.log((histories * current).sum(-1)) - (p * torch.log(current)).sum(-1)
    constant = losses - rest
    assert torch.allclose(constant, constant[:1].expand_as(constant), atol=1e-9)


def test_isolated_spike_is_repressed():
    history = 0.02 + 0.78 * hill(3, 3)
    heat = 0.02 + 0.58 * hill(2, 2)
    heat[6, 6] = 0.70
    result = repress_aberrance(heat, state(history, 3, 3), ResponseArmConfig(candidates=2))
    assert result.losses.tolist() == pytest.approx([0.836665, 0.030129], abs=2e-6)
    assert int(result.chosen) == 1
    assert float(result.heat[2, 2]) == pytest.approx(1.080000, abs=1e-6)
    assert float(result.heat[6, 6]) == pytest.approx(0.714001, abs=1e-6)
    assert int(heat.argmax()) == 6 * 7 + 6
    assert int(result.heat.argmax()) == 2 * 7 + 2
    # Line 15: what is remembered is the history, moved to the target.
    assert torch.equal(result.state.heatmap, torch.roll(history, (-1, -1), (0, 1)))
    assert result.state.peak.tolist() == [2, 2]


def test_published_rule_keeps_a_distractor_that_looks_like_a_target():
    """Known weakness of the published criterion: it punishes products with several peaks, not other histories."""
    heat = torch.maximum(0.02 + 0.58 * hill(2, 2), 0.02 + 0.68 * hill(2, 5))
    clean = 0.02 + 0.78 * hill(3, 3)
    config = ResponseArmConfig(candidates=2)
    result = repress_aberrance(heat, state(clean, 3, 3), config)
    assert result.losses.tolist() == pytest.approx([0.059435, 0.079232], abs=2e-6)
    assert int(result.chosen) == 0


def test_correlation_criterion_keeps_the_target_that_the_history_knows():
    heat = torch.maximum(0.02 + 0.58 * hill(2, 2), 0.02 + 0.68 * hill(2, 5))
    crowded = torch.maximum(0.02 + 0.78 * hill(3, 3), 0.02 + 0.68 * hill(3, 6))
    config = ResponseArmConfig(candidates=2, criterion="corr")
    assert int(repress_aberrance(heat, state(crowded, 3, 3), config).chosen) == 1


def test_same_frame_again_changes_nothing():
    heat = 0.02 + 0.78 * hill(12, 12, 25)
    result = repress_aberrance(heat, state(heat, 12, 12), ResponseArmConfig())
    assert int(result.chosen) == 0
    assert torch.equal(result.heat, heat)


def test_one_peak_alone_is_always_the_first_candidate():
    heat = 0.02 + 0.5 * hill(4, 9, 25)
    result = repress_aberrance(
        heat, state(0.02 + 0.78 * hill(12, 12, 25), 12, 12), ResponseArmConfig()
    )
    assert int(result.chosen) == 0
    assert result.state.peak.tolist() == [4, 9]


def test_missing_candidates_are_never_chosen():
    heat = torch.full((7, 7), 0.3) + 1e-3 * torch.arange(49.0).view(7, 7)  # a slope: one maximum
    result = repress_aberrance(heat, state(0.02 + 0.78 * hill(3, 3), 3, 3), ResponseArmConfig())
    assert int(result.chosen) == 0
    assert result.losses[1:].tolist() == [1e9, 1e9]


def test_pixels_instead_of_maxima_stay_within_one_hill():
    heat = torch.maximum(0.02 + 0.78 * hill(12, 12, 25), 0.02 + 0.4 * hill(3, 3, 25))
    history = state(0.02 + 0.7 * hill(12, 12, 25), 12, 12)
    pixels = repress_aberrance(heat, history, ResponseArmConfig(peaks="pixels"))
    assert (pixels.state.peak - 12).abs().max() <= 1


# --- what is remembered -----------------------------------------------------------------------------------------------


def is_roll(matrix: torch.Tensor, of: torch.Tensor) -> bool:
    steps = torch.arange(25)
    return bool((roll(of, torch.cartesian_prod(steps, steps)) == matrix).all((1, 2)).any())


def test_literal_only_ever_translates_the_first_frame():
    generator = torch.Generator().manual_seed(7)
    first = scene(generator)
    now = state(first, 12, 12)
    label = now.label
    for _ in range(6):
        now = repress_aberrance(scene(generator), now, ResponseArmConfig(update="literal")).state
    assert is_roll(now.label, label)
    assert is_roll(now.heatmap, first)


def test_previous_remembers_the_raw_heatmap_of_a_trusted_frame():
    generator = torch.Generator().manual_seed(8)
    now = state(scene(generator), 12, 12)
    label = now.label
    trusted = 0
    for _ in range(12):
        heat = scene(generator)
        result = repress_aberrance(heat, now, ResponseArmConfig())
        if int(result.chosen) == 0:
            trusted += 1
            assert torch.equal(result.state.heatmap, heat)
            row, column = divmod(int(heat.argmax()), 25)
            assert result.state.peak.tolist() == [row, column]
        else:
            assert is_roll(result.state.heatmap, now.heatmap)
        assert is_roll(result.state.label, label)
        now = result.state
    assert trusted > 0


def test_extreme_heatmaps_stay_finite():
    """All of it at the floor but one cell at the ceiling: products of 1e-8."""
    heat = torch.full((25, 25), 1e-4)
    heat[20, 4] = 1 - 1e-4
    other = torch.full((25, 25), 1e-4)
    other[2, 2] = 1 - 1e-4
    result = repress_aberrance(heat, state(other, 2, 2), ResponseArmConfig())
    assert torch.isfinite(result.losses).all()
    assert torch.isfinite(result.heat).all()
