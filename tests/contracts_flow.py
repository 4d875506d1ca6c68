"""The kit of laws for solvers within flow-matching loops: the effective velocity is the explicit loop."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.adapters.flow import Through
from bac.caching.interceptors.patch import interceptors
from bac.solvers import AdamsBashforth, Multistep
from tests.contracts import AdapterContract

TIMES = {1: (0.83,), 3: (0.83, 0.37, 0.061), 5: (0.97, 0.71, 0.43, 0.19, 0.043)}  # on nobody's grid
TOLERANCE = 5e-6  # of the largest value, in float32


def solver(times: Sequence[float]) -> Multistep:
    """Coefficients near Euler's, in which every term takes part."""
    generator = torch.Generator().manual_seed(len(times))
    rows = AdamsBashforth(1).rows(times)
    return Multistep(tuple(tuple(c + 0.2 * float(torch.randn((), generator=generator)) for c in row) for row in rows))


def denoising(num_steps: int) -> bac.Denoising:
    return bac.Denoising(solver(TIMES[num_steps]), TIMES[num_steps])


@dataclass
class Step:
    """What the denoiser itself was given and gave, below everything that `bac` put on.

    Attributes:
        sample: `[B, T, Da]`.
        time: As the policy counts it.
        output: Velocity or clean actions, as the sample is shaped.
    """

    sample: Tensor
    time: float
    output: Tensor


class FlowContract:
    """What must hold for every flow-matching policy. Subclass it, name the class `Test...`, give the adapter's kit."""

    kit: AdapterContract
    rising: bool = False
    buckets: int | None = None
    replays: bool = True
    batch_sizes: tuple[int, ...] = (1, 3)

    def predict(self, policy: nn.Module, batch_size: int = 3, seed: int = 0) -> Tensor:
        return self.kit.predict(policy, batch_size, seed)

    def actions(self, sample: Tensor) -> Tensor:
        """The policy's action chunk, given the last sample."""
        return sample[..., : self.num_actions]

    num_actions = 2

    def noise(self, time: float) -> float:
        """The share of noise at a time of `TIMES`, after the denoiser's rounding."""
        if self.buckets is None:
            return time
        return 1 - int((1 - time) * self.buckets) / self.buckets

    def told(self, time: float) -> float:
        noise = self.noise(time)
        told = 1 - noise if self.rising else noise
        return told if self.buckets is None else round(told * self.buckets)

    def watch(self, policy: nn.Module) -> list[Step]:
        """Spy on the places of an untouched policy; the list fills while it runs."""
        steps: list[Step] = []
        for place in find_host(policy).flow.places:
            if isinstance(place.passes, Through):
                spy(place.site.owner, place.site.attribute, place.passes, steps)
        return steps

    def terms(self, step: Step, noise: float) -> tuple[Tensor, Tensor]:
        """Clean actions and noise."""
        x, v = step.sample, -step.output if self.rising else step.output
        return x - noise * v, x + (1 - noise) * v

    def explicit(self, steps: Sequence[Step], times: Sequence[float], rows: Any) -> list[Tensor]:
        """The samples after every step, by the definition of the solver, in float64."""
        found, before = [], ()
        for step, time, row in zip(steps, times, rows, strict=True):
            newest = self.terms(Step(step.sample.double(), step.time, step.output.double()), self.noise(time))
            terms = (*newest, step.sample.double(), *before)
            found.append(sum(c * term for c, term in zip(row, terms, strict=True)))
            before = newest
        return found

    @pytest.mark.parametrize("num_steps", TIMES)
    def test_the_effective_velocity_makes_the_explicit_loop(self, num_steps: int) -> None:
        way = denoising(num_steps)
        for batch_size in self.batch_sizes:
            policy = self.kit.make_policy()
            steps = self.watch(policy)
            bac.wrap(policy, way, replay=False)
            steps.clear()  # an adapter may try a call out
            chunk = self.predict(policy, batch_size)
            assert [step.time for step in steps] == pytest.approx([self.told(t) for t in way.timesteps], abs=1e-6)
            expected = self.explicit(steps, way.timesteps, way.solver.coefficients)
            for found, wanted in zip([step.sample for step in steps[1:]], expected, strict=False):
                assert_close(found, wanted)
            assert_close(chunk, self.actions(expected[-1]))

    def test_eulers_rows_at_its_own_times_are_the_policy_itself(self) -> None:
        policy = self.kit.make_policy()
        dense = self.predict(policy)
        bac.wrap(policy, self.own(policy), replay=False)
        assert_close(self.predict(policy), dense)

    def own(self, policy: nn.Module) -> bac.Denoising:
        """The policy's own steps as a solver."""
        count = find_host(policy).num_steps
        return bac.Denoising(solver="Euler", timesteps=tuple(1 - step / count for step in range(count)))

    def test_unwrap_leaves_no_trace_of_it(self) -> None:
        policy = self.kit.make_policy()
        dense, keys = self.predict(policy), list(policy.state_dict())
        policy.reset()
        before = [sorted(vars(module)) for module in policy.modules()]
        bac.wrap(policy, denoising(3))
        assert list(policy.state_dict()) == keys
        self.predict(policy)
        policy.reset()
        bac.unwrap(policy)
        assert [sorted(vars(module)) for module in policy.modules()] == before
        assert not list(interceptors(policy))
        assert torch.equal(self.predict(policy), dense)

    def test_a_second_chunk_equals_a_fresh_policys(self) -> None:
        used, fresh = self.kit.make_policy(), self.kit.make_policy()
        for policy in (used, fresh):
            bac.wrap(policy, denoising(3), replay=False)
        self.predict(used, seed=1)
        assert torch.equal(self.predict(used, seed=2), self.predict(fresh, seed=2))

    def test_saved_loaded_replayed_and_copied_it_is_bit_equal(self, tmp_path: Path) -> None:
        policy, path = self.kit.make_policy(), tmp_path / "bac.json"
        bac.wrap(policy, denoising(3), replay=False)
        expected = self.predict(policy, batch_size=1)
        denoising(3).save(path)
        bac.wrap(policy, bac.load(path), replay=bac.Replay(record="first") if self.replays else True)
        twin = copy.deepcopy(policy)
        for each in (policy, policy, twin):
            assert torch.equal(self.predict(each, batch_size=1), expected)
        assert bool(bac.describe(policy).plans) == self.replays

    def test_blocks_may_be_reused_besides(self) -> None:
        policy = self.kit.make_policy()
        bac.wrap(policy, denoising(3), replay=False)
        dense = self.predict(policy)
        names = [block.name for block in find_host(policy).blocks]
        everywhere = bac.Denoising(
            denoising(3).solver, TIMES[3], schedule=bac.Schedule(3, dict.fromkeys(names, (0, 1, 2)))
        )
        bac.wrap(policy, everywhere, replay=False)
        assert torch.equal(self.predict(policy), dense)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    """Equal within `TOLERANCE` of the largest value."""
    assert float((found - wanted).abs().max()) <= TOLERANCE * float(wanted.abs().max())


def spy(owner: Any, attribute: str, passes: Through, steps: list[Step]) -> None:
    """Let a call note sample, time and velocity that pass through it, under whatever is put on top of it."""
    original = getattr(owner, attribute)

    def spied(*inputs: Any, **options: Any) -> Any:
        values = dict(zip(passes.names, inputs, strict=False)) | options
        if passes.sample:
            steps.append(Step(values[passes.sample].detach().clone(), -1.0, torch.empty(0)))
        if passes.time:
            time = values[passes.time].flatten()
            assert bool((time == time[0]).all())
            steps[-1].time = float(time[0])
        output = original(*inputs, **options)
        if passes.answers:
            sample = steps[-1].sample
            flat = output.numel() == sample.numel()
            steps[-1].output = output.reshape(sample.shape) if flat else output[:, -sample.shape[1] :]
        return output

    vars(owner)[attribute] = spied
