"""The memory read of STMTrack: properties 2 and 3 of its specification."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from siam_tracker_ros.networks.matching.space_time import SpaceTimeRead

READ = SpaceTimeRead()


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(2, 6, 8, 5, 5, generator=generator),
        torch.randn(2, 8, 7, 7, generator=generator),
    )


def test_equations_3_and_4_written_out(features):
    memory, query = features
    got = READ(memory, query)
    assert got.shape == (2, 16, 7, 7)
    for b in range(2):
        cells = [memory[b, t, :, y, x] for t in range(6) for y in range(5) for x in range(5)]
        cell = query[b, :, 3, 5]
        raw = [math.exp(float(f @ cell) / math.sqrt(8)) for f in cells]
        found = sum(w / sum(raw) * f for w, f in zip(raw, cells, strict=True))
        assert torch.allclose(got[b, :8, 3, 5], found, atol=1e-5)
        assert torch.equal(got[b, 8:, 3, 5], cell)


def test_weights_sum_to_one_over_the_memory(features):
    weights = READ.weights(*features)
    assert weights.shape == (2, 49, 150)
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.sum(-1), torch.ones(2, 49), atol=1e-5)


def test_order_and_number_of_copies(features):
    memory, query = features
    read = READ(memory, query)
    assert torch.allclose(READ(memory[:, [3, 1, 5, 0, 2, 4]], query), read, atol=1e-5)
    assert torch.allclose(READ(torch.cat([memory, memory], 1), query), read, atol=1e-5)
    once_more = READ(torch.cat([memory, memory[:, :1]], 1), query)
    assert float((once_more - read).abs().max()) > 0.01


def test_constant_memory_is_read_as_it_is(features):
    _, query = features
    constant = torch.linspace(-1, 1, 8)
    memory = constant.view(1, 1, 8, 1, 1).expand(2, 6, 8, 5, 5)
    read = READ(memory, query)[:, :8]
    assert torch.allclose(read, constant.view(1, 8, 1, 1).expand_as(read), atol=1e-5)


def test_one_hot_memory_gives_the_nearest_neighbour():
    memory = 100 * torch.eye(9).view(1, 1, 9, 3, 3)
    query = torch.full((1, 9, 2, 2), 0.1)
    for cell, channel in enumerate((7, 0, 3, 5)):
        query.view(1, 9, 4)[0, channel, cell] = 1.0
    read = READ(memory, query)[0, :9].flatten(1)
    assert read.argmax(0).tolist() == [7, 0, 3, 5]
    assert torch.allclose(read.max(0).values, torch.full((4,), 100.0), atol=1e-3)


def test_masked_read_is_the_read_over_the_subset(features):
    memory, query = features
    for bits in itertools.product((False, True), repeat=6):
        if any(bits):
            mask = torch.tensor(bits).expand(2, 6)
            masked, subset = READ(memory, query, mask), READ(memory[:, list(bits)], query)
            assert float((masked - subset).abs().max()) < 1e-5


def test_bfloat16_features_are_compared_in_fp32(features):
    memory, query = (f.bfloat16() for f in features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = READ.weights(memory, query)
    exact = READ.weights(memory.float(), query.float())
    assert weights.dtype == torch.float32
    # The scaled query is rounded to bfloat16, the products and the softmax are not.
    assert float((weights - exact).abs().max()) < 0.01
    assert torch.allclose(weights.sum(-1), torch.ones(2, 49), atol=1e-5)


def test_cosine_read_compares_directions_alone(features):
    memory, query = features
    read = SpaceTimeRead(cosine=True)
    weights = read.weights(memory, query)
    assert torch.allclose(read.weights(memory * 7, query / 3), weights, atol=1e-5)
    keys = memory[1].transpose(0, 1).flatten(1)
    cosines = torch.cosine_similarity(query[1, :, 2, 4, None], keys, dim=0)
    assert torch.allclose(weights[1, 2 * 7 + 4], torch.softmax(10 * cosines, 0), atol=1e-5)
    # What is read are the features themselves, not their directions.
    assert torch.allclose(read(memory * 7, query)[:, :8], 7 * read(memory, query)[:, :8], atol=1e-4)
