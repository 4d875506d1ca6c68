"""`bac.tune` on a flow-matching policy: steps fitted to its own or to its flow, with a budget or without."""

from types import SimpleNamespace

import pytest
import torch

import bac
from bac.adapters import find_host
from bac.tuning import BudgetError
from bac.tuning.flow import FITTED, OWN
from bac.tuning.machine import Machine
from bac.tuning.trial import distinct_names

OPTIONS = {"replay": False, "rounds": 5, "evaluations": 0, "progress": False}


@pytest.fixture(scope="module")
def flow():
    pytest.importorskip("lerobot")
    from tests.lerobot import models

    return models.smolvla(), [models.observation(2), models.observation(2)]


class Clock:
    """Counts 10 ms for every evaluation of a flow policy's denoiser, and stops once for ten seconds."""

    def __init__(self, last_module, hiccup=None):
        self.now, self.looks, self.hiccup = 0.0, 0, hiccup
        self.hook = last_module.register_forward_hook(self.tick)

    def tick(self, *_):
        self.now += 0.010

    def __call__(self):
        self.looks += 1
        if self.looks == self.hiccup:
            self.now += 10.0
        return self.now


def tuned_dense(tuned):
    return next(trial for trial in tuned.trials if trial.family == "dense")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_flow_policy_s_own_solver_with_fewer_steps_is_a_rival_too(monkeypatch):
    pytest.importorskip("lerobot")
    from tests.lerobot import models

    monkeypatch.setattr(Machine, "fit", classmethod(lambda cls, *_: cls(0.0, 0.9, 0.0)))  # 5 of 7 steps in 4.5 s
    monkeypatch.setattr("bac.tuning.tuner.PESSIMISTIC", 0.0)  # and it stays so slow
    policy = models.smolvla()
    batches = [models.observation(2), models.observation(2)]
    tuned = bac.tune(policy, batches, target_latency_s=5.0, sweeps=(2, 5), **OPTIONS)
    looked_at = {(trial.family, trial.denoising.num_steps) for trial in tuned.trials}
    assert looked_at == {(family, count) for family in ("fewer steps", OWN, FITTED) for count in (2, 5)}
    assert tuned.chosen.typical_error == min(trial.typical_error for trial in tuned.trials)
    own = next(trial.denoising for trial in tuned.trials if trial.family == "fewer steps")
    bac.wrap(policy, own, replay=False)
    found = find_host(policy).predict_seeded(batches[0], 0)
    policy = bac.unwrap(policy)
    assert policy.config.num_steps == 7
    policy.config.num_steps = own.num_steps
    assert torch.equal(found, find_host(policy).predict_seeded(batches[0], 0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_a_budget_a_flow_policy_gets_three_fitted_steps(flow):
    policy, batches = flow
    tuned = bac.tune(policy, batches, **OPTIONS)
    assert (tuned.chosen.family, tuned.denoising.num_steps) == (FITTED, 3)
    assert {trial.denoising.num_steps for trial in tuned.neighbours} == {2, 4}
    assert tuned_dense(tuned).fit_error == 0.0 < tuned.chosen.fit_error
    assert tuned_dense(tuned).other_error == tuned.own_from_flow > 0.0
    assert "because no budget was given" in str(tuned)
    assert all(trial.p95_s is not None for trial in tuned.trials if trial.family in (FITTED, "dense"))
    assert len(set(distinct_names(tuned.trials))) == len(tuned.trials)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_flow_policy_can_be_fitted_to_its_flow_instead(flow):
    policy, batches = flow
    tuned = bac.tune(policy, batches, reference="flow", **OPTIONS)
    assert tuned.own_from_flow == pytest.approx(tuned_dense(tuned).fit_error)
    assert tuned_dense(tuned).other_error == 0.0 < tuned.chosen.other_error
    assert "a fine run of the flow, 100 steps" in str(tuned.denoising.measured)
    assert "to own: to the policy's own steps" in str(tuned)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_step_of_a_flow_is_never_chosen_by_itself(flow, monkeypatch):
    policy, batches = flow
    monkeypatch.setattr(Machine, "fit", classmethod(lambda cls, *_: cls(0.0, 0.9, 0.0)))
    with pytest.raises(BudgetError, match="not reachable"):
        bac.tune(policy, batches, target_latency_s=1.5, **OPTIONS)  # one step, but not two


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_clock_that_hiccups_once_changes_no_choice(flow, monkeypatch):
    policy, batches = flow

    def choice(hiccup):
        clock = Clock(policy.model.action_out_proj, hiccup)
        with monkeypatch.context() as patch:
            patch.setattr("bac.tuning.timing.time", SimpleNamespace(perf_counter=clock, process_time=clock))
            tuned = bac.tune(policy, batches, target_latency_s=0.060, **OPTIONS)
        clock.hook.remove()
        return tuned, clock.looks

    undisturbed, looks = choice(None)
    assert undisturbed.chosen.p95_s == pytest.approx(0.010 * undisturbed.denoising.num_steps)
    assert not any("timed again" in note for note in undisturbed.notes)
    in_cost_model, in_finalist = choice(3)[0], choice(looks - 5)[0]  # the end of a call: four looks at a sample
    assert in_cost_model.denoising == undisturbed.denoising == in_finalist.denoising
    assert any("timed again" in note for note in in_finalist.notes)
