"""What `bac.describe` says of an untouched policy and of a wrapped one."""

from __future__ import annotations

import copy

import pytest
import torch

import bac
import bac.plan
from bac.errors import UnsupportedPolicyError
from bac.guarding import calibrate
from bac.published import FirstBlock
from tests.bac.models import TickPolicy, TinyTransformerPolicy, obs, sweep

FIRST = bac.Replay(record="first")


def predict(policy, chunks=1):
    with torch.no_grad():
        for _ in range(chunks):
            policy.predict_action_chunk(obs(2))


def lines(description):
    return [line.strip() for line in str(description).splitlines()]


def test_of_an_untouched_policy_it_says_what_it_is_and_what_could_be():
    found = bac.describe(TinyTransformerPolicy())
    assert (found.policy, found.denoiser, found.num_blocks) == ("TinyTransformerPolicy", "TinyTransformerPolicy", 6)
    assert (found.stack, found.denoising, found.plans, found.num_replays) == ((), None, (), 0)
    assert str(found).splitlines() == [
        "TinyTransformerPolicy: denoiser TinyTransformerPolicy, 6 blocks, unknown solver, unknown number of steps",
        "  not wrapped; options:",
        "    replay: bac.wrap(policy) makes the same actions, faster",
        "    reuse of 6 blocks: bac.calibrate(policy, batches), then bac.adaptive_schedule",
    ]


def test_it_changes_nothing():
    policy = TinyTransformerPolicy()
    before = [dict(vars(module)) for module in policy.modules()]
    bac.describe(policy)
    assert [dict(vars(module)) for module in policy.modules()] == before


def test_of_a_wrapped_policy_it_says_what_is_followed_what_stands_where_and_what_is_updated():
    policy = TinyTransformerPolicy()
    schedule = sweep(policy, (0, 3), 7)
    found = bac.describe(bac.wrap(policy, schedule, replay=False))
    assert found.denoising == bac.Denoising(schedule=schedule)
    assert found.options == ()
    assert str(found).splitlines() == [
        "TinyTransformerPolicy: denoiser TinyTransformerPolicy, 6 blocks, unknown solver, unknown number of steps",
        "  follows hold, own solver, 7 steps",
        "  on TinyTransformerPolicy.predict_action_chunk, outermost first:",
        "    run      begins and ends the denoising run, with an empty cache",
        "    sampler  the policy's own",
        *(f"  {line}" for line in str(schedule).splitlines()),
    ]


def test_the_stack_is_in_the_order_in_which_it_is_asked():
    policy = TinyTransformerPolicy()
    schedule = sweep(policy, (0, 3), 7)
    guard = calibrate(policy, schedule, [obs(3)], progress=False)
    assert [role for role, _ in bac.describe(bac.wrap(policy)).stack] == ["replay", "run"]
    assert [role for role, _ in bac.describe(bac.wrap(policy, FirstBlock(7, 0.1))).stack] == ["run"]
    found = bac.describe(bac.wrap(policy, schedule, guard=guard))
    assert [role for role, _ in found.stack] == ["guard", "replay", "run"]
    assert lines(found)[3] == "guard    probes one chunk in 150; 0 alarms so far"


def test_plans_their_cost_and_the_chunks_they_made_are_told():
    policy = bac.wrap(TinyTransformerPolicy(), replay=FIRST)
    assert dict(bac.describe(policy).stack)["replay"] == (
        "exact, recorded at first sight of a shape: 0 plans, 0 chunks replayed"
    )
    predict(policy, chunks=4)  # the first one is recorded
    found = bac.describe(policy)
    (plan,) = bac.plan.plans(policy)
    assert (found.plans, found.num_replays) == ((plan,), 3)
    cost = f"{plan.num_operations:,} operators, {1e3 * plan.replay_s:.2f} ms a chunk, {plan.num_bytes / 1e6:.1f} MB"
    assert f"plan for [2, 2, 3] float32 on cpu: {cost}" in lines(found)
    assert dict(found.stack)["replay"].endswith("1 plans, 3 chunks replayed")


def test_a_copy_has_neither_plans_nor_replays():
    policy = bac.wrap(TinyTransformerPolicy(), replay=FIRST)
    predict(policy, chunks=2)
    found = bac.describe(copy.deepcopy(policy))
    assert (found.plans, found.num_replays, found.denoising) == ((), 0, bac.Denoising())


def test_why_a_run_is_not_replayed_is_told():
    policy = TickPolicy(num_steps=2)
    bac.wrap(policy, bac.Schedule(2, {"tick0": (0, 1)}), blocks=policy.blocks())
    with torch.no_grad():
        for _ in range(2):
            policy.predict_action_chunk({"obs": torch.zeros(1, 1)})
    found = bac.describe(policy, blocks=policy.blocks())
    assert len(found.refusals) == 1 and found.refusals[0].startswith("its control flow depends on")
    assert f"not replayed: {found.refusals[0]}" in lines(found)


def test_unwrapped_it_is_what_it_was():
    policy = TinyTransformerPolicy()
    before = bac.describe(policy)
    bac.wrap(policy)
    assert bac.describe(bac.unwrap(policy)) == before


def test_a_policy_whose_blocks_are_not_found_is_told_how_to_name_them():
    with pytest.raises(UnsupportedPolicyError, match=r"blocks=\[bac\.Block\("):
        bac.describe(TickPolicy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_of_a_diffusion_policy_it_tells_the_solver_that_is_swapped_in_and_its_own():
    pytest.importorskip("lerobot")
    from tests.policies.models import observations, small_policy

    policy = small_policy(n_layer=1)
    policy.diffusion.use_solver("DDIM", 20)
    untouched = bac.describe(policy)
    assert untouched.own == "ExactDDIMScheduler, 20 steps"
    assert untouched.options[1] == "fewer steps of a fitted solver: bac.tune(policy, batches, target_hz=25)"
    names = [block.name for block in bac.adapters.find_host(policy).blocks]
    schedule = bac.Schedule(3, dict.fromkeys(names, (0, 2)))
    denoising = bac.Denoising("DPM-Solver++", (91, 47, 2), schedule=schedule)
    guard = calibrate(policy, denoising, [observations(3)], progress=False)
    found = bac.describe(bac.wrap(policy, denoising, guard=guard))
    assert [role for role, _ in found.stack] == ["guard", "replay", "run", "solver"]
    assert dict(found.stack)["solver"] == (
        "swaps in for the call: noise_scheduler = DPMSolverMultistepScheduler, num_inference_steps = 3"
    )
    assert (found.own, found.denoising) == ("ExactDDIMScheduler, 20 steps", denoising)
    assert found.sampler == "DiffusionTransformerModel.conditional_sample"
