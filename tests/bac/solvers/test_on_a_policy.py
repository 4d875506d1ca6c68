"""Solvers on a small DP-T: what they have in common with the policy's own, and that they leave it as it was."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import bac
import bac.plan
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.errors import MismatchError, ScheduleError
from bac.solvers import SOLVERS, Multistep, solvers_of
from bac.solvers.multistep import level
from tests.bac.models import TinyTransformerPolicy

pytest.importorskip("lerobot")

from tests.policies.models import observations, small_policy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
FIRST_ORDER, SECOND_ORDER = SOLVERS
NUM_STEPS = 20
TIMES = (94, 69, 34, 4)
FITTED = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))
FIRST = bac.Replay(record="first")


def made(**options):
    policy = small_policy(n_layer=1, **{"noise_scheduler_type": "DDIM", **options})
    policy.diffusion.use_solver("DDIM", NUM_STEPS)
    return policy


@pytest.fixture
def policy():
    return made()


def chunk(policy, denoising=None):
    """One action chunk of the same noise, by another way to denoise if one is given."""
    if denoising is not None:
        bac.wrap(policy, denoising, replay=False)
    try:
        return policy.predict_action_chunk(observations(2), generator=torch.Generator().manual_seed(0))
    finally:
        if denoising is not None:
            bac.unwrap(policy)


def state(policy):
    """Attributes of every module and of the noise scheduler, compared by identity where they are tensors."""
    scheduler = policy.diffusion.noise_scheduler
    own = {name: dict(vars(module)) for name, module in policy.named_modules()}
    return own, scheduler, dict(vars(scheduler)), policy.diffusion.num_inference_steps


def test_a_diffusion_policy_can_be_put_to_both_solvers_and_an_euler_loop_to_none(policy):
    assert solvers_of(find_host(policy)) == SOLVERS
    assert solvers_of(find_host(TinyTransformerPolicy())) == ()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_is_the_policy_s_own_of_that_name(policy, solver):
    found = chunk(policy, bac.Denoising(solver, TIMES))
    policy.diffusion.use_solver(solver.name, 4, timesteps=list(TIMES))
    assert torch.equal(found, chunk(policy))


def test_where_nothing_is_clipped_the_first_order_is_ddim():
    policy = made(clip_sample=False)
    found = chunk(policy, bac.Denoising(FIRST_ORDER, TIMES))
    policy.diffusion.use_solver("DDIM", 4, timesteps=list(TIMES))
    torch.testing.assert_close(found, chunk(policy), rtol=1e-4, atol=1e-4)


def second_order(policy, timesteps):
    """DPM-Solver++(2M), equation 13 of Lu et al. (2022), as coefficients; its last step is of first order."""
    shares = [level(float(policy.diffusion.noise_scheduler.alphas_cumprod[t])) for t in timesteps]
    half_log_snr = [math.log(clean / noise) for clean, noise in shares]
    rows = []
    for step in range(len(timesteps) - 1):
        (_, here), (clean, there) = shares[step : step + 2]
        h = half_log_snr[step + 1] - half_log_snr[step]
        gain = -clean * math.expm1(-h)
        slope = gain * 0.5 * h / (half_log_snr[step] - half_log_snr[step - 1]) if step else 0.0
        rows.append((gain + slope, 0.0, there / here, -slope, 0.0)[: 5 if step else 3])
    return Multistep((*rows, (1.0, 0.0, 0.0, 0.0, 0.0)))


def test_dpm_solver_is_one_choice_of_coefficients():
    policy = made(clip_sample=False)
    found = chunk(policy, bac.Denoising(second_order(policy, TIMES), TIMES))
    expected = chunk(policy, bac.Denoising(SECOND_ORDER, TIMES))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own", ["DDPM", "DPM-Solver++", "UniPC"])
def test_solvers_are_the_same_whatever_the_policy_s_own_was(policy, own):
    denoising = bac.Denoising(SECOND_ORDER, TIMES[:3])
    expected = chunk(policy, denoising)
    policy.diffusion.use_solver(own, NUM_STEPS)
    assert torch.equal(chunk(policy, denoising), expected)


@pytest.mark.parametrize("replay", [False, FIRST])
@pytest.mark.parametrize("solver", [*SOLVERS, FITTED], ids=lambda solver: solver.name)
def test_unwrap_leaves_no_trace_of_a_solver(policy, solver, replay):
    own, before = chunk(policy), state(policy)
    bac.wrap(policy, bac.Denoising(solver, (94, 54)), replay=replay)
    chunk(policy), chunk(policy)
    bac.unwrap(policy)
    assert state(policy) == before
    assert torch.equal(chunk(policy), own)


@pytest.mark.parametrize("replay", [False, FIRST])
def test_between_calls_and_after_an_exception_the_policy_has_its_own_solver(policy, replay):
    _, scheduler, attributes, num_steps = before = state(policy)
    bac.wrap(policy, bac.Denoising(FITTED, (94, 54)), replay=replay)

    def its_own():
        return policy.diffusion.noise_scheduler, vars(scheduler), policy.diffusion.num_inference_steps

    assert its_own() == (scheduler, attributes, num_steps)
    expected = chunk(policy)
    assert its_own() == (scheduler, attributes, num_steps)
    with pytest.raises(RuntimeError), torch.no_grad():
        policy.predict_action_chunk({name: value[..., :-1] for name, value in observations(2).items()})
    assert its_own() == (scheduler, attributes, num_steps)
    assert torch.equal(chunk(policy), expected)
    bac.unwrap(policy)
    assert state(policy) == before


@pytest.mark.parametrize("solver", [SECOND_ORDER, FITTED], ids=lambda solver: solver.name)
def test_a_solver_is_replayed_bit_for_bit_and_so_it_is_on_a_copy(policy, solver):
    denoising = bac.Denoising(solver, (94, 54))
    expected = chunk(policy, denoising)
    bac.wrap(policy, denoising, replay=FIRST)
    assert torch.equal(chunk(policy), expected)
    twin = copy.deepcopy(policy)
    for each in (policy, twin):
        assert torch.equal(chunk(each), expected)
        assert torch.equal(chunk(each), expected)
        assert len(bac.plan.plans(each)) == 1
    assert bac.describe(policy).num_replays == 2 and bac.describe(twin).num_replays == 1


def test_a_copy_has_a_solver_of_its_own(policy):
    bac.wrap(policy, bac.Denoising(FIRST_ORDER, TIMES), replay=False)
    twin, expected = copy.deepcopy(policy), chunk(policy)
    for swap in vars(policy.diffusion)["conditional_sample"].original.swaps:
        if swap.attribute == "noise_scheduler":
            swap.value.set_timesteps = None
    policy.diffusion.num_inference_steps = None
    assert torch.equal(chunk(twin), expected)
    assert twin.diffusion.num_inference_steps == NUM_STEPS
    assert not list(interceptors(bac.unwrap(twin)))


def test_a_solver_for_another_policy_is_refused_and_nothing_is_changed(policy):
    made_for = find_host(policy).fingerprint()
    denoising = bac.Denoising(FITTED, (94, 54), fingerprint=made_for)
    other = small_policy(n_layer=2)
    before = state(other)
    with pytest.raises(
        MismatchError, match=r"fitted multistep, 2 steps was made for something else\.\n  block_names: "
    ):
        bac.wrap(other, denoising)
    assert state(other) == before
    bac.wrap(other, denoising, strict=False)
    assert bac.describe(other).denoising == denoising


def test_a_refused_solver_leaves_the_one_in_place(policy):
    bac.wrap(policy, bac.Denoising(SECOND_ORDER, TIMES), replay=False)
    before, expected = state(policy), chunk(policy)
    for refused in (
        bac.Denoising(FITTED, (94, 54), fingerprint=find_host(small_policy(n_layer=2)).fingerprint()),
        bac.Denoising(FITTED, (94, 54), schedule=bac.Schedule(2, {"no such block": (0,)})),
    ):
        with pytest.raises(bac.BacError):
            bac.wrap(policy, refused)
    assert state(policy) == before
    assert torch.equal(chunk(policy), expected)


def test_wrapping_again_takes_the_solver_off(policy):
    own = chunk(policy)
    bac.wrap(policy, bac.Denoising(SECOND_ORDER, TIMES), replay=False)
    bac.wrap(policy, bac.Denoising(num_steps=NUM_STEPS), replay=False)
    assert torch.equal(chunk(policy), own)


def test_the_fingerprint_of_another_solver_and_number_of_steps_does_not_matter_to_one_that_replaces_both(policy):
    denoising = bac.Denoising(FITTED, (94, 54), fingerprint=find_host(policy).fingerprint())
    expected = chunk(policy, denoising)
    policy.diffusion.use_solver("DDPM", 7)
    assert torch.equal(chunk(policy, denoising), expected)


def test_a_policy_whose_solver_cannot_be_replaced_says_so():
    with pytest.raises(ScheduleError, match=r"cannot be replaced .*bac\.wrap\(policy, schedule\)"):
        bac.wrap(TinyTransformerPolicy(), bac.Denoising(FITTED, (94, 54)))
