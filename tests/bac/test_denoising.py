"""One way to denoise, as a value: what it takes, what it refuses, what it says of itself."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import bac
from bac.caching.estimators import Estimator, Hold, Taylor
from bac.errors import ScheduleError
from bac.fingerprint import Fingerprint
from bac.published import FirstBlock, Newton, PreviousChunk, ScaleShift
from bac.solvers import DPMSolver, Multistep
from tests.bac.models import TickPolicy

FITTED = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))
TWO_OF_FOUR = bac.Schedule(4, {"tick0": (0, 2), "tick1": (0,)})


class Tenfold(Estimator):
    """Ten times the last output; at home in no file."""

    name = "tenfold"

    def store(self, state, at, x, output):
        return output

    def estimate(self, state, at, x):
        return 10 * state


# What it takes


def test_nothing_given_it_is_the_policy_itself():
    nothing = bac.Denoising()
    assert (nothing.solver, nothing.timesteps, nothing.schedule, nothing.num_evaluations) == (None, (), None, None)
    assert nothing.name == "own solver, own steps"


def test_a_solver_may_be_given_by_name():
    by_name, by_value = (bac.Denoising(solver, (94, 69, 4)) for solver in ("DPM-Solver++", DPMSolver(2)))
    assert by_name == by_value and hash(by_name) == hash(by_value)
    assert bac.Denoising("DPM-Solver++ 1", (3,)).solver == DPMSolver(1)


def test_timesteps_say_the_number_of_steps_and_may_come_as_whole_floats():
    denoising = bac.Denoising("DPM-Solver++", [94.0, 69.0, 4.0])
    assert (denoising.timesteps, denoising.num_steps, denoising.num_evaluations) == ((94, 69, 4), 3, 3)


def test_a_schedule_alone_leaves_the_number_of_steps_to_the_policy_and_says_how_many_it_is_for():
    denoising = bac.Denoising(schedule=TWO_OF_FOUR)
    assert (denoising.num_steps, denoising.num_evaluations, denoising.made_for.num_steps) == (None, 4, 4)


@pytest.mark.parametrize(
    ("denoising", "sweeps"),
    [
        (bac.Denoising(), None),
        (bac.Denoising(num_steps=7), 7),
        (bac.Denoising("DPM-Solver++", (9, 3)), 2),
        (bac.Denoising(schedule=TWO_OF_FOUR), 1.5),
        (bac.Denoising(schedule=FirstBlock(4, 0.1)), None),
    ],
)
def test_sweeps_are_updates_per_block(denoising, sweeps):
    assert denoising.sweeps == sweeps


def test_an_estimator_that_a_name_says_all_of_is_the_schedule_s():
    given, named = Taylor(2), bac.Schedule(4, dict(TWO_OF_FOUR.update_steps), estimator="taylor-2")
    denoising = bac.Denoising(schedule=TWO_OF_FOUR, estimator=given)
    assert denoising == bac.Denoising(schedule=named)
    assert (denoising.estimator, denoising.schedule.estimator, denoising.estimator_name) == (
        None,
        "taylor-2",
        "taylor-2",
    )
    assert denoising.estimator_on(()) == given


def test_an_estimator_along_the_solver_s_timesteps_is_too_and_along_another_axis_it_is_not():
    along = Newton(1, (9, 3, 2, 0))
    schedule = {"solver": "DPM-Solver++", "timesteps": (9, 3, 2, 0), "schedule": TWO_OF_FOUR}
    assert bac.Denoising(**schedule, estimator=along).estimator is None
    assert bac.Denoising(**schedule, estimator=along).estimator_on((7.0, 5.0)) == along
    other = Newton(1, (8, 3, 2, 0))
    assert bac.Denoising(**schedule, estimator=other).estimator_on((7.0, 5.0)) == other


@pytest.mark.parametrize("estimator", [PreviousChunk(refresh=3), ScaleShift({}), Tenfold()])
def test_an_estimator_with_more_to_it_than_its_name_is_kept(estimator):
    denoising = bac.Denoising(schedule=TWO_OF_FOUR, estimator=estimator)
    assert denoising.estimator is estimator
    assert denoising.schedule.estimator == denoising.estimator_name == estimator.name


def test_a_home_made_estimator_gives_a_reused_block_s_value():
    policy = TickPolicy(num_steps=3)
    denoising = bac.Denoising(schedule=bac.Schedule(3, {"tick0": (0, 2)}), estimator=Tenfold())
    bac.wrap(policy, denoising, blocks=policy.blocks())
    assert policy.predict_action_chunk({"obs": torch.zeros(1, 1)}).item() == 1 + 10 * 1 + 2


def test_value_and_schedule_are_for_the_same_policy():
    mine, its = Fingerprint(policy="a.Policy"), Fingerprint(policy="b.Policy")
    signed = bac.Schedule(4, {"a": (0,)}, its)
    assert bac.Denoising(schedule=signed).fingerprint == its
    overruled = bac.Denoising(schedule=signed, fingerprint=mine)
    assert overruled.fingerprint == overruled.schedule.fingerprint == overruled.made_for == mine


def test_wrap_takes_a_schedule_a_rule_or_nothing_as_a_denoising():
    for what in (TWO_OF_FOUR, FirstBlock(4, 0.1), None):
        assert bac.Denoising.of(what) == bac.Denoising(schedule=what)
    denoising = bac.Denoising(num_steps=3)
    assert bac.Denoising.of(denoising) is denoising


def test_pickle_and_deepcopy_keep_it():
    denoising = bac.Denoising(FITTED, (9, 3), schedule=bac.Schedule(2, {"a": (0,)}, estimator="taylor-1"))
    for kept in (pickle.loads(pickle.dumps(denoising)), copy.deepcopy(denoising)):
        assert kept == denoising and hash(kept) == hash(denoising)


# What it refuses


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"solver": "DPM-Solver++", "timesteps": (3, 9)}, "timesteps: must fall from step to step"),
        ({"solver": "DPM-Solver++", "timesteps": (9, 9)}, "must fall from step to step, got (9, 9)"),
        ({"solver": "DPM-Solver++", "timesteps": (9, 3.5)}, "timesteps: must fall from step to step"),
        ({"solver": "DPM-Solver++", "timesteps": (9, -1)}, "timesteps: must fall from step to step"),
        ({"solver": "DPM-Solver++", "timesteps": (float("nan"),)}, "timesteps: must fall from step to step"),
        ({"solver": 3}, "solver: must be a solver of bac.solvers, or its name, got 3"),
        ({"schedule": "bac.json"}, "schedule: must be a bac.Schedule or an online rule, got 'bac.json'"),
        (
            {"estimator": "hold", "schedule": TWO_OF_FOUR},
            "estimator: must be one of bac.caching.estimators",
        ),
        ({"solver": "DPM-Solver++", "timesteps": ("a",)}, "timesteps: must fall from step to step"),
        ({"num_steps": True}, "num_steps: must be a whole number of at least 1, got True"),
        ({"solver": "DPM-Solver++"}, "a solver needs them: bac.Denoising(solver='DPM-Solver++', timesteps=(91, 47"),
        ({"timesteps": (9, 3)}, "timesteps: belong to a solver, and a solver needs them"),
        (
            {"solver": "Heun", "timesteps": (3,)},
            "solver: must be one of DPM-Solver++ 1, DPM-Solver++, DDPM, SDE-DPM-Solver++, Euler, Adams-Bashforth",
        ),
        ({"solver": "fitted multistep", "timesteps": (3,)}, "solver: fitted multistep needs its coefficients"),
        ({"solver": FITTED, "timesteps": (9, 3, 1)}, "timesteps: must be 2, one for each row of coefficients, got 3"),
        ({"solver": FITTED, "timesteps": (9, 3), "num_steps": 3}, "num_steps: timesteps are for 2 steps, got 3"),
        ({"solver": FITTED, "timesteps": (9, 3), "schedule": TWO_OF_FOUR}, "num_steps: schedule is for 4 steps, got 2"),
        ({"num_steps": 3, "schedule": TWO_OF_FOUR}, "num_steps: schedule is for 4 steps, got 3"),
        ({"num_steps": 3, "schedule": FirstBlock(4, 0.1)}, "num_steps: schedule is for 4 steps, got 3"),
        ({"num_steps": 0}, "num_steps: must be a whole number of at least 1, got 0"),
        ({"num_steps": 2.0}, "num_steps: must be a whole number of at least 1, got 2.0"),
        ({"estimator": Hold()}, "estimator: hold needs a schedule, which says where to reuse"),
        ({"precision": "int8"}, 'precision: must be one of "as loaded", "tf32", "bf16", got \'int8\''),
    ],
)
def test_a_broken_rule_is_named(parts, message):
    with pytest.raises(ScheduleError) as caught:
        bac.Denoising(**parts)
    assert message in str(caught.value)


def test_coefficients_that_are_not_finite_are_refused_before_there_is_a_denoising():
    with pytest.raises(
        ScheduleError,
        match=r"coefficients of step 1: must be finite and keep samples below 1e\+18, got \(nan, .*tune again",
    ):
        Multistep(((0.5, 0.4, 0.0), (float("nan"), 0.0, 0.0, 0.1, -0.1)))


def test_something_that_is_none_is_refused():
    with pytest.raises(
        ScheduleError, match=r"must be a bac\.Denoising or a bac\.Schedule, got dict; for a file: bac\.l"
    ):
        bac.Denoising.of({"num_steps": 4})


def test_a_schedule_that_names_no_estimator_there_is_is_refused_where_it_is_asked_for():
    denoising = bac.Denoising(schedule=bac.Schedule(4, {"tick0": (0,)}, estimator="fourier-1"))
    with pytest.raises(ScheduleError, match="estimator: must be one of hold, .*, got 'fourier-1'"):
        bac.wrap(policy := TickPolicy(), denoising, blocks=policy.blocks())


# What it says of itself


@pytest.mark.parametrize(
    ("denoising", "name"),
    [
        (bac.Denoising(num_steps=7), "own solver, 7 steps"),
        (bac.Denoising("DPM-Solver++ 1", (94, 69)), "DPM-Solver++ 1, 2 steps"),
        (bac.Denoising(FITTED, (94, 54), schedule=bac.Schedule(2, {"a": (0,)})), "hold, fitted multistep, 2 steps"),
        (bac.Denoising(schedule=TWO_OF_FOUR, estimator=Taylor(1)), "taylor-1, own solver, 4 steps"),
        (bac.Denoising(schedule=FirstBlock(4, 0.1)), "hold, own solver, 4 steps"),
    ],
)
def test_its_name_says_estimator_solver_and_steps(denoising, name):
    assert denoising.name == name


def test_it_draws_itself():
    denoising = bac.Denoising(FITTED, (94, 54), schedule=bac.Schedule(2, {"layers.0.ffn": (0,)}))
    assert str(denoising).splitlines() == [
        "Denoising: hold, fitted multistep, 2 steps",
        "timesteps 94, 54",
        "step        clean        noise       sample clean before noise before",
        "   0       0.5000       0.4000       0.0000",
        "   1       1.0000       0.0000       0.0000       0.1000      -0.1000",
        "Schedule: 1 blocks, 2 denoising steps, 1 of 2 updates        # update  . reuse",
        "  layers.0.ffn  #.",
    ]
    assert str(bac.Denoising(num_steps=7)) == "Denoising: own solver, 7 steps"


FITTED = Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1)))


def test_shares_of_noise_stay_as_they_are_and_whole_numbers_become_whole(tmp_path):
    for given, kept in (((0.8, 0.05), (0.8, 0.05)), ((1.0, 0.2), (1.0, 0.2)), ((91.0, 3), (91, 3))):
        way = bac.Denoising(FITTED, given)
        way.save(tmp_path / "bac.json")
        assert way.timesteps == bac.load(tmp_path / "bac.json").timesteps == kept
        assert [type(value) for value in way.timesteps] == [type(value) for value in kept]
        assert bac.load(tmp_path / "bac.json") == way


@pytest.mark.parametrize("given", [(0.5, 0.0), (1.5, 0.5), (0.2, 0.8), (0.5, 0.5), (-0.5, -0.7), (True, 0.5)])
def test_trap_3_shares_of_noise_lie_between_0_and_1_and_fall(given):
    with pytest.raises(ScheduleError, match=r"shares of noise in \(0, 1\], such as \(0.8, 0.2, 0.05\)"):
        bac.Denoising(FITTED, given)
