"""The parts of an export whose answers can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bac.exported import Noise, Port, Scaling
from bac.exported.metadata import metadata
from bac.exported.noise import drawn
from bac.exported.scaling import normalised, restored
from bac.exporting.draws import without_draws
from bac.plan.passes.slices import write_slices
from bac.plan.program import interpret
from tests.bac.plan.runs import names, taped

RANGE = Scaling("MIN_MAX", [0.0, 2.0], [4.0, 2.0], 1e-8)  # the second quantity is constant
MEAN = Scaling("MEAN_STD", [1.0], [2.0], 0.0)


def test_a_range_becomes_minus_one_to_one_and_a_constant_its_lower_end():
    values = np.array([[0.0, 2.0], [4.0, 2.0]])
    assert normalised(values, RANGE).tolist() == [[-1.0, -1.0], [1.0, -1.0]]


@pytest.mark.parametrize("scaling", [MEAN, Scaling("QUANTILES", [1.0], [5.0], 0.0), None])
def test_restoring_undoes_normalising(scaling):
    values = np.array([[0.5], [3.0]])
    assert restored(normalised(values, scaling), scaling).tolist() == values.tolist()


def test_a_package_tells_scale_and_shift_of_every_quantity():
    found = metadata([Port("state", (1, 1), "float32", "")], [Noise("noise", (2, 3), "float32", "normal")],
                     {"state": MEAN, "action": MEAN})  # fmt: skip
    assert (found["bac.inputs"], found["bac.noise"], found["bac.shape.noise"]) == ("state", "noise", "2 3")
    assert (found["bac.scale.state"], found["bac.shift.state"]) == ("0.5", "-0.5")
    assert (found["bac.scale.action"], found["bac.shift.action"]) == ("2", "1")


def test_noise_is_drawn_as_the_policy_draws_it():
    noise = [Noise("noise.0", (2, 3), "float32", "normal"), Noise("noise.1", (1, 5), "float32", "uniform")]
    generator = torch.Generator().manual_seed(0)
    found = drawn(noise, generator)
    generator.manual_seed(0)
    wanted = [torch.randn(3, generator=generator) for _ in range(2)]
    assert np.array_equal(found[0], torch.stack(wanted).numpy())
    assert np.array_equal(found[1][0], torch.rand(5, generator=generator).numpy())


def test_draws_of_one_shape_in_a_row_become_one_input():
    def draws(x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn(3) * 2 - torch.randn(3) + torch.rand(1)

    program, noise = without_draws(taped(draws, torch.zeros(3)), {0: "x"})
    assert [(one.name, one.shape, one.distribution) for one in noise] == [
        ("noise.0", (2, 3), "normal"),
        ("noise.1", (1, 1), "uniform"),
    ]
    given = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    (made,) = interpret(program, (torch.zeros(3), given, torch.tensor([[0.5]])))
    assert made.tolist() == [-7.5, -15.5, -23.5]


def test_a_write_into_a_slice_is_written_as_one():
    def writes(x: torch.Tensor) -> torch.Tensor:
        whole = torch.zeros(2, 5)
        whole[:, 1:4] = x
        return whole

    program = taped(writes, torch.ones(2, 3))
    assert "as_strided_scatter" in names(program)
    written = write_slices(program)
    assert "slice_scatter" in names(written) and "as_strided_scatter" not in names(written)
    (made,) = interpret(written, (torch.tensor([[1.0, 2, 3], [4, 5, 6]]),))
    assert made.tolist() == [[0, 1, 2, 3, 0], [0, 4, 5, 6, 0]]
