"""What was tuned is kept in a file and put on again, on the policy that it was tuned for and on no other."""

import json

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.errors import ScheduleError
from bac.tuning import SOLVERS, Candidate, Multistep, is_candidate, load
from bac.denoising import fewer_of_its_own, fewer_steps, together
from bac.files import save
from tests.bac.models import TinyTransformerPolicy

pytest.importorskip("lerobot")

from tests.policies.models import observations, small_policy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
GRID = tuple(range(99, -1, -5))
FITTED = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))


@pytest.fixture
def policy():
    made = small_policy(n_layer=1, noise_scheduler_type="DDIM")
    made.diffusion.use_solver("DDIM", len(GRID))
    return made


def chunk(policy):
    return policy.predict_action_chunk(observations(2), generator=torch.Generator().manual_seed(0))


def candidates(policy):
    names = [block.name for block in find_host(policy).blocks]
    yield fewer_steps(SOLVERS[1], GRID, (1, 6, 13))
    yield fewer_steps(FITTED, GRID, (1, 9))
    yield together(SOLVERS[0], GRID, (2, 9), names, "taylor-1", stride=4)
    yield Candidate("dense", len(GRID))


def test_fewer_steps_of_a_flow_policy_s_own_solver_are_kept(tmp_path):
    from tests.lerobot import models

    policy = models.smolvla()
    candidate = fewer_of_its_own(3).signed(policy)
    save(candidate, tmp_path / "bac.json")
    assert load(tmp_path / "bac.json") == candidate
    undo = load(tmp_path / "bac.json").put_on(policy, executor="interpret")
    assert policy.config.num_steps == 3
    undo()
    assert policy.config.num_steps == 7
    with pytest.raises(ScheduleError, match="was tuned for another policy"):
        candidate.put_on(models.pi(name="pi0"), executor="interpret")


@pytest.mark.parametrize("place", range(4))
def test_what_was_saved_denoises_as_before(policy, place, tmp_path):
    candidate = list(candidates(policy))[place].signed(policy)
    undo = candidate.put_on(policy, executor="interpret")
    expected = chunk(policy)
    undo()
    save(candidate, tmp_path / "bac.json")
    loaded = load(tmp_path / "bac.json")
    assert loaded == candidate and loaded.fingerprint == candidate.fingerprint
    undo = loaded.put_on(policy, executor="interpret")
    assert torch.equal(chunk(policy), expected)
    undo()


def test_a_tuned_policy_is_told_from_a_schedule(policy, tmp_path):
    schedule = next(c.schedule for c in candidates(policy) if c.schedule is not None)
    schedule.save(tmp_path / "schedule.json")
    save(Candidate("dense", 20), tmp_path / "tuned.json")
    assert [is_candidate(tmp_path / f"{name}.json") for name in ("schedule", "tuned")] == [False, True]
    with pytest.raises(ScheduleError, match="not a tuned policy"):
        load(tmp_path / "schedule.json")


def test_what_was_tuned_for_another_policy_is_refused_and_nothing_is_left(policy):
    candidate = fewer_steps(FITTED, GRID, (1, 9)).signed(policy)
    other = small_policy(n_layer=2)
    before = vars(other.diffusion).copy()
    with pytest.raises(ScheduleError, match=r"tuned for another policy; block_names.*tune this"):
        candidate.put_on(other, executor="interpret")
    assert vars(other.diffusion) == before


def test_a_policy_whose_solver_cannot_be_replaced_says_so():
    with pytest.raises(ScheduleError, match=r"cannot be replaced .*bac\.wrap\(policy, schedule\)"):
        fewer_steps(FITTED, GRID, (1, 9)).put_on(TinyTransformerPolicy(), executor="interpret")


@pytest.mark.parametrize(("part", "value"), [("version", 9), ("timesteps", None), ("solver", "Euler")])
def test_a_file_that_is_not_whole_is_refused_by_name(part, value, tmp_path):
    path = tmp_path / "bac.json"
    save(fewer_steps(SOLVERS[0], GRID, (1, 9)), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    with pytest.raises(ScheduleError, match=r"bac\.json"):
        load(path)
    path.write_text("{")
    with pytest.raises(ScheduleError, match="not complete JSON"):
        load(path)


def test_the_choice_of_a_tuning_is_one_file(tmp_path):
    from tests.bac.models import obs

    tuned = bac.tune(
        TinyTransformerPolicy(num_steps=4, num_layers=1), [obs(2, 0), obs(2, 1)], target_latency_s=5.0,
        executor="interpret", rounds=2, evaluations=0, progress=False,
    )  # fmt: skip
    tuned.save_choice(tmp_path / "bac.json")
    assert load(tmp_path / "bac.json") == tuned.chosen.candidate


def test_printed_it_shows_timesteps_and_coefficients():
    text = str(fewer_steps(FITTED, GRID, (1, 9)))
    assert text.startswith("fewer steps, fitted multistep, 2 steps") and "timesteps 94, 54" in text and "0.4000" in text
