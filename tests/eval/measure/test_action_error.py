"""Action error, energy distance, and who is compared with whom."""

import pytest
import torch

from eval.measure.action_error import action_error, energy_distance, reference_of
from eval.setup.cells import adaptive, dense, together


def test_action_error_is_the_root_mean_square():
    reference = torch.zeros(2, 3, 5, 7)
    chunks = torch.zeros(2, 3, 5, 7)
    chunks[0, 0, 0] = 3.0  # 7 of 210 numbers are off by 3
    assert action_error(chunks, reference) == pytest.approx((7 * 9 / 210) ** 0.5)


def test_energy_distance_of_two_points_is_their_distance():
    # Constant samples: E|X - X'| = 0, E|X - Y| = |x - y|; numbers that all differ by 3 are 3 apart.
    reference = torch.zeros(4, 1, 2, 2)
    assert energy_distance(reference + 3.0, reference) == pytest.approx(6.0)
    assert energy_distance(reference, reference) == 0.0


def test_energy_distance_sees_a_spread_that_means_do_not():
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(200, 1, 1, 1, generator=generator)
    narrow = 0.1 * torch.randn(200, 1, 1, 1, generator=generator)
    other = torch.randn(200, 1, 1, 1, generator=generator)
    assert energy_distance(wide, narrow) > 0.3
    assert abs(energy_distance(wide, other)) < 0.05


@pytest.mark.parametrize(
    ("cell", "reference"),
    [
        (dense(), dense()),
        (adaptive(10, 5), dense()),
        (together("uniform", 15), dense()),
        (adaptive(10, 5, num_steps=50), dense(50)),
        (dense(14, spacing="trailing"), None),
        (dense(14, "DDIM", "trailing"), dense(100, "DDIM")),
        (adaptive(10, 5, solver="DDIM"), dense(100, "DDIM")),
        (dense(14, "DPM-Solver++", "linspace"), dense(100, "DDIM")),
    ],
)
def test_cells_are_compared_where_they_share_draws(cell, reference):
    assert reference_of(cell) == reference
