"""A flow-matching head of one's own, described in one value: `bac.wrap(policy, what, flow=...)`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters.flow import Flow, place
from bac.caching.interceptors.patch import interceptors
from bac.errors import RunError, ScheduleError, UnsupportedPolicyError
from bac.solvers import Multistep

NOISE = torch.tensor([[3.0, -2.0]])


class Head(nn.Module):
    """Believes the clean action to be half of the observation, or the mean of it and the sample."""

    def forward(self, observed: Tensor, noisy: Tensor, when: Tensor) -> Tensor:
        clean = 0.5 * observed
        return (clean - noisy) / (1 - when)[:, None]  # action - noise, where the time rises


class Policy(nn.Module):
    """Its own loop, over times that are denser at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.num_steps = Head(), 4
        self.register_buffer("noise", NOISE.clone())

    def reset(self) -> None:
        pass

    def times(self, num_steps: int) -> list[float]:
        return [1 - (1 - step / num_steps) ** 2 for step in range(num_steps + 1)]

    def predict_action_chunk(self, batch: Tensor) -> Tensor:
        times, x = self.times(self.num_steps), self.noise.expand(len(batch), -1)
        for here, after in zip(times, times[1:], strict=False):
            x = x + (after - here) * self.head(batch, x, torch.full((len(batch),), here))
        return x


def described(policy: Policy) -> Flow:
    step = place(policy.head, sample="noisy", time="when", answers=True)
    return Flow((step,), rising=True, grid=policy.times, num_steps_at=(policy, "num_steps"))


@pytest.fixture
def policy() -> Policy:
    return Policy().eval()


def test_it_takes_a_solver_with_steps_of_its_own_width(policy):
    observed, ways = torch.tensor([[1.0, 8.0], [0.0, 2.0]]), bac.Denoising(solver="Euler", timesteps=(0.8, 0.2, 0.05))
    before = dict(vars(policy.head))
    own = policy.predict_action_chunk(observed)
    bac.wrap(policy, ways, flow=described(policy), replay=False)
    # At share t of noise, the velocity is (clean - x) / t: a step from t to u leaves u / t of the distance.
    left = (0.2 / 0.8) * (0.05 / 0.2) * 0.0
    torch.testing.assert_close(policy.predict_action_chunk(observed), 0.5 * observed + left * (NOISE - 0.5 * observed))
    twin = copy.deepcopy(policy)
    assert policy.num_steps == 4
    bac.unwrap(policy)
    assert dict(vars(policy.head)) == before and not list(interceptors(policy))
    assert torch.equal(policy.predict_action_chunk(observed), own)
    torch.testing.assert_close(twin.predict_action_chunk(observed), 0.5 * observed)


def test_it_is_described_and_replayed_like_any_other(policy):
    ways = bac.Denoising(solver="Euler", timesteps=(0.8, 0.2))
    bac.wrap(policy, ways, flow=described(policy), replay=False)
    with torch.no_grad():
        expected = policy.predict_action_chunk(torch.ones(2, 2))
        bac.wrap(policy, ways, flow=described(policy), replay=bac.Replay(record="first"))
        for _ in range(2):
            assert torch.equal(policy.predict_action_chunk(torch.ones(2, 2)), expected)
    report = str(bac.describe(policy))
    assert "follows Euler, 2 steps" in report and "Euler at 0.8, 0.2; swaps in for the call: num_steps = 2" in report
    assert bac.describe(policy).num_replays == 1


def test_its_coefficients_are_followed_to_the_letter(policy):
    rows = Multistep(((0.0, 0.0, 2.0), (0.0, 0.0, 1.0, 0.0, 3.0)))  # twice the sample, then + 3 times the first noise
    bac.wrap(policy, bac.Denoising(rows, (0.5, 0.25)), flow=described(policy), replay=False)
    observed = torch.zeros(1, 2)
    noise = NOISE / 0.5  # x = (1 - t) clean + t noise with clean = 0
    torch.testing.assert_close(policy.predict_action_chunk(observed), 2 * NOISE + 3 * noise)


def test_without_a_description_it_is_refused(policy):
    with pytest.raises(UnsupportedPolicyError, match="found no nn.TransformerDecoderLayer"):
        bac.wrap(policy, bac.Denoising(solver="Euler", timesteps=(0.8, 0.2)))


def test_a_description_without_its_sample_or_with_another_number_of_steps_says_so(policy):
    blind = Flow((place(policy.head, time="when", answers=True),), rising=True, num_steps_at=(policy, "num_steps"))
    bac.wrap(policy, bac.Denoising(solver="Euler", timesteps=(0.8, 0.2)), flow=blind, replay=False)
    with pytest.raises(RunError, match="answered before the solver saw its sample"):
        policy.predict_action_chunk(torch.zeros(1, 2))
    step = place(policy.head, sample="noisy", time="when", answers=True)
    bac.wrap(policy, bac.Denoising(solver="Euler", timesteps=(0.8, 0.2)), flow=Flow((step,), rising=True), replay=False)
    with pytest.raises(RunError, match="makes more than the 2 steps"):
        policy.predict_action_chunk(torch.zeros(1, 2))


def test_a_name_that_the_call_does_not_have_is_refused(policy):
    way = bac.Denoising(solver="Euler", timesteps=(0.8, 0.2))
    with pytest.raises(ScheduleError, match=r"Head.forward: has no parameter 'x'; it has observed, noisy, when"):
        bac.wrap(policy, way, flow=Flow((place(policy.head, sample="x"),)), replay=False)
    with pytest.raises(ScheduleError, match=r"Head.turn: there is no such method"):
        bac.wrap(policy, way, flow=Flow((place(policy.head, "turn", sample="x"),)), replay=False)
    assert not list(interceptors(policy))
