"""`bac.tune`, whole, on policies small enough to be tuned in seconds."""

import json

import pytest
import torch

import bac
from bac.caching.interceptors.patch import interceptors
from bac.errors import CalibrationError, ScheduleError
from bac.tuning import BudgetError
from bac.tuning.batches import split
from bac.tuning.bench import Bench, Quantiles
from bac.tuning.machine import Machine
from tests.bac.models import TinyTransformerPolicy, obs, sweep

OPTIONS = {"replay": False, "rounds": 2, "evaluations": 6, "progress": False}


@pytest.fixture(scope="module")
def tuned():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=2)
    return bac.tune(policy, [obs(2, seed) for seed in range(4)], target_latency_s=5.0, **OPTIONS)


def test_without_a_choice_of_solver_its_own_steps_are_cached(tuned):
    assert {trial.denoising.solver for trial in tuned.trials} == {None}
    assert {trial.family for trial in tuned.trials} >= {"dense", "together, hold", "adaptive + bubbling"}


def test_where_everything_is_affordable_everything_is_computed(tuned):
    assert (tuned.chosen.family, tuned.chosen.fit_error, tuned.chosen.error) == ("dense", 0.0, 0.0)


def test_the_choice_was_run_on_other_observations_and_timed(tuned):
    assert tuned.chosen.error is not None and tuned.chosen.p95_s >= tuned.chosen.p50_s > 0


def test_no_trial_of_the_front_is_beaten(tuned):
    for best in tuned.front:
        assert not any(t.p50_s <= best.p50_s and t.typical_error < best.typical_error for t in tuned.trials)


def test_the_report_says_budget_machine_and_choice(tuned):
    text = str(tuned)
    assert "target_latency_s=5: p95 below 4500.0 ms (10% kept free)" in text
    assert "x sweeps" in text and "-> dense, own solver, 6 steps" in text


def test_the_report_is_kept_and_drawn(tuned, tmp_path):
    pytest.importorskip("matplotlib")
    tuned.save(tmp_path / "bac.tuned.json")
    stored = json.loads((tmp_path / "bac.tuned.json").read_text())
    assert stored["chosen"]["name"] == tuned.chosen.name and len(stored["rows"]) == len(tuned.trials)
    ways = [bac.Denoising.from_document(row["denoising"], "row") for row in stored["rows"]]
    assert ways == [trial.denoising for trial in tuned.trials]
    tuned.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000


def test_an_error_budget_takes_the_fastest_that_keeps_it():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    batches = [obs(2, seed) for seed in range(2)]
    loose = bac.tune(policy, batches, max_action_error=10.0, **OPTIONS)
    strict = bac.tune(policy, batches, max_action_error=1e-12, **OPTIONS)
    assert loose.denoising.sweeps < strict.denoising.sweeps == 6
    assert loose.chosen.error <= 10.0


def test_an_impossible_demand_is_refused_with_what_is_reachable():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    with pytest.raises(
        BudgetError, match=r"not reachable on this machine.*chunks per second.*Ask for at least"
    ) as refusal:
        bac.tune(policy, [obs(4)], control_hz=1e6, n_action_steps=1, **OPTIONS)
    assert "control_hz=1e+06, n_action_steps=1" in str(refusal.value)


def test_what_it_was_told_to_reach_can_be_reached(monkeypatch):
    machine = Machine(0.1, 0.01, 0.5)

    def latencies(self, ways, rounds):
        return [Quantiles(machine.seconds(way), 1.05 * machine.seconds(way)) for way in ways]

    monkeypatch.setattr(Bench, "latencies", latencies)
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    with pytest.raises(BudgetError) as refusal:
        bac.tune(policy, [obs(4)], target_latency_s=1e-6, **OPTIONS)
    told = float(str(refusal.value).split("target_latency_s=")[-1].split(",")[0])
    assert bac.tune(policy, [obs(4)], target_latency_s=told, **OPTIONS).chosen.p95_s <= told


def test_the_policy_is_left_as_it_was():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    before = {name: vars(module).copy() for name, module in policy.named_modules()}
    state = torch.get_rng_state()
    bac.tune(policy, [obs(4)], target_latency_s=5.0, **OPTIONS)
    assert {name: vars(module) for name, module in policy.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), state)


def test_half_of_the_observations_only_judge():
    fit, judge = split([obs(4)])
    assert torch.equal(fit[0]["obs"], obs(4)["obs"][::2]) and torch.equal(judge[0]["obs"], obs(4)["obs"][1::2])
    first, second, third = ({"obs": obs(1)["obs"] + shift} for shift in range(3))
    assert split([first, second, third]) == ([first, third], [second])


@pytest.mark.parametrize(
    ("batches", "got"), [([], "0 and 0"), ([obs(1)], "1 and 0"), ([obs(2)], "1 and 1"), ([obs(1), obs(1)], "1 and 1")]
)
def test_two_observations_cannot_both_fit_and_judge(batches, got):
    with pytest.raises(CalibrationError, match=f"at least three observations.* got {got}"):
        split(batches)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_with_a_choice_of_solver_tuned_fewer_steps_are_never_better_on_what_was_fitted(monkeypatch):
    pytest.importorskip("lerobot")
    from tests.policies.models import observations, small_policy

    monkeypatch.setattr(Machine, "fit", classmethod(lambda cls, *_: cls(0.0, 0.0, 0.9)))  # 5 of 8 sweeps in 4.5 s
    monkeypatch.setattr("bac.tuning.tuner.PESSIMISTIC", 0.0)  # and it stays so slow
    policy = small_policy(n_layer=1, noise_scheduler_type="DDIM")
    policy.diffusion.use_solver("DDIM", 8)
    tuned = bac.tune(policy, [observations(4)], target_latency_s=5.0, sweeps=(2, 5), **OPTIONS)
    rivals = [trial for trial in tuned.trials if trial.family.startswith("fewer steps, ")]
    assert max(trial.denoising.num_steps for trial in rivals) == 5
    assert 0 < tuned.chosen.fit_error <= min(trial.fit_error for trial in rivals)
    assert tuned.denoising.sweeps <= 5
    calls = []
    policy.diffusion.transformer.register_forward_hook(lambda *_: calls.append(0))
    bac.wrap(policy, tuned.denoising, replay=False).predict_action_chunk(observations(1))
    assert len(calls) == tuned.denoising.num_steps
    bac.unwrap(policy).predict_action_chunk(observations(1))
    assert len(calls) == tuned.denoising.num_steps + 8


def test_every_way_is_tried_once_and_the_choice_is_a_trial(tuned):
    ways = [trial.denoising for trial in tuned.trials]
    assert len(set(ways)) == len(ways)
    assert tuned.trials.count(tuned.chosen) == 1 and tuned.denoising == tuned.chosen.denoising


def test_the_choice_is_signed_and_one_file(tuned, tmp_path):
    tuned.denoising.save(tmp_path / "bac.json")
    loaded = bac.load(tmp_path / "bac.json")
    assert loaded == tuned.denoising
    assert loaded.fingerprint == tuned.denoising.fingerprint
    assert (loaded.fingerprint.policy, loaded.fingerprint.version) == (
        "tests.bac.models.TinyTransformerPolicy",
        bac.__version__,
    )


def test_a_wrapped_policy_is_refused_and_stays_wrapped():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    bac.wrap(policy, sweep(policy, (0, 3), 6), replay=False)
    with pytest.raises(CalibrationError, match=r"bac\.unwrap\(policy\)"):
        bac.tune(policy, [obs(4)], target_latency_s=5.0, **OPTIONS)
    assert any(True for _ in interceptors(policy))


def test_one_batch_instead_of_a_list_is_refused():
    with pytest.raises(CalibrationError, match=r"pass \[batch\]"):
        bac.tune(TinyTransformerPolicy(), obs(4), target_latency_s=5.0, **OPTIONS)


def test_where_nothing_was_looked_at_the_refusal_says_what_to_change(monkeypatch):
    monkeypatch.setattr(Machine, "fit", classmethod(lambda cls, *_: cls(0.0, 0.0, 1.0)))
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    with pytest.raises(BudgetError, match=r"none of 0 trials .* sweeps= and evaluations="):
        bac.tune(policy, [obs(4)], target_latency_s=2.0, sweeps=(5,), **{**OPTIONS, "evaluations": 0})


def test_what_is_no_tensor_belongs_to_every_observation():
    fit, judge = split([{**obs(4), "task": "push the block"}])
    assert fit[0]["task"] == judge[0]["task"] == "push the block"


def test_a_machine_that_was_busy_when_it_was_measured_is_asked_again(monkeypatch):
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    batches = [obs(2, seed) for seed in range(2)]
    monkeypatch.setattr(Machine, "fit", classmethod(lambda cls, *_: cls(0.0, 0.0, 0.9)))  # 5 of 6 sweeps in 4.5 s
    tuned = bac.tune(policy, batches, target_latency_s=5.0, **OPTIONS)
    assert tuned.chosen.family == "dense"
    assert tuned.machine.per_sweep_s < 0.5


def test_if_what_was_searched_for_is_late_what_is_in_time_is_searched_for(monkeypatch):
    machine = Machine(0.0, 0.0, 1.0)

    def latencies(self, ways, rounds):
        return [Quantiles(machine.seconds(way), 1.3 * machine.seconds(way)) for way in ways]

    monkeypatch.setattr(Machine, "fit", classmethod(lambda cls, *_: machine))
    monkeypatch.setattr(Bench, "latencies", latencies)
    policy = TinyTransformerPolicy(num_steps=8, num_layers=1)
    # 5 sweeps should take 5 s of 5.4, and take 6.5 at the 95th percentile; 4 take 5.2.
    tuned = bac.tune(policy, [obs(2, seed) for seed in range(2)], target_latency_s=6.0, sweeps=(1,), **OPTIONS)
    assert tuned.denoising.sweeps == 4 and tuned.chosen.p95_s == pytest.approx(5.2)
    assert {trial.denoising.sweeps for trial in tuned.trials if trial.p95_s is not None} == {
        5,
        1,
        4,
    }  # 1 was not searched for
    assert tuned.trials.count(tuned.chosen) == 1


@pytest.mark.parametrize(
    ("name", "why"), [("flow", "needs a flow-matching policy"), ("fine", "must be 'own' or 'flow'")]
)
def test_a_reference_that_a_policy_has_not_is_refused_before_anything_runs(name, why):
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    with pytest.raises(ScheduleError, match=why):
        bac.tune(policy, [obs(4)], target_hz=10, reference=name, **OPTIONS)


def test_without_a_budget_a_policy_that_is_no_flow_is_asked_for_one():
    policy = TinyTransformerPolicy(num_steps=6, num_layers=1)
    with pytest.raises(BudgetError, match="give exactly one of"):
        bac.tune(policy, [obs(4)], **OPTIONS)
