"""The report of a tuning: names that differ, a legend, and the cliff beside the choice."""

from dataclasses import replace

import pytest

import bac
from bac.tuning import Budget, Trial, Tuned
from bac.tuning.machine import Machine
from bac.tuning.report import steps_around
from bac.tuning.trial import distinct_names

BUDGET, MACHINE = Budget.of(target_latency_s=0.05), Machine(0.001, 0.010, 0.0)


def trial(num_steps, found, **known):
    return Trial("fewer steps", bac.Denoising(num_steps=num_steps), found, found, **known)


def euler(*times):
    return Trial("tuned", bac.Denoising("Euler", times), 0.1, 0.1)


def test_no_two_rows_have_the_same_name():
    same = [euler(0.8, 0.2), euler(0.9, 0.2), euler(0.9, 0.2), euler(0.8)]
    names = distinct_names(same)
    assert names[:2] == ["tuned, Euler, 2 steps, at 0.8 0.2", "tuned, Euler, 2 steps, at 0.9 0.2"]
    assert names[2:] == ["tuned, Euler, 2 steps, at 0.9 0.2 (2)", "tuned, Euler, 1 steps"]


def test_rows_say_evaluations_latency_rate_and_how_much_faster_than_dense():
    choice = trial(2, 0.04, error=0.05, p50_s=0.020, p95_s=0.021, other_error=0.03)
    dense = trial(10, 0.0, p50_s=0.100)
    lines = str(Tuned(choice, (choice, dense), BUDGET, MACHINE, dense_s=0.100)).splitlines()
    assert lines[2].split() == [
        "NFE",
        "sweeps",
        "p50",
        "p95",
        "Hz",
        "faster",
        "typical",
        "fit",
        "held",
        "out",
        "to",
        "flow",
    ]
    numbers = lines[3].split()
    assert numbers[0] == "->" and numbers[-8:] == [
        "20.0",
        "21.0",
        "50.0",
        "5.0x",
        "0.0400",
        "0.0400",
        "0.0500",
        "0.0300",
    ]
    assert lines[4].split()[-8:] == ["~100.0", "-", "10.0", "1.0x", "0.0000", "0.0000", "-", "-"]
    assert any(line.startswith("->: the choice") for line in lines)


@pytest.mark.parametrize(("less", "own", "warns"), [(0.029, 0.0, False), (0.031, 0.0, True), (0.031, 0.032, False)])
def test_a_choice_beside_a_cliff_says_so(less, own, warns):
    """An error that the policy's own steps make anyway is no cliff."""
    choice = trial(3, 0.010)
    lines = list(steps_around(choice, [trial(2, less), trial(4, 0.006)], own))
    assert lines[0] == f"errors around the choice: 2 steps {less:.4f}, 3 steps 0.0100 (the choice), 4 steps 0.0060"
    assert any("next to a cliff" in line for line in lines) == warns


def test_without_neighbours_nothing_is_said_of_a_cliff():
    assert not list(steps_around(trial(3, 0.010), []))


def test_the_report_says_how_far_the_policy_s_own_steps_are_from_the_flow():
    choice = trial(3, 0.01)
    tuned = Tuned(choice, (choice,), BUDGET, MACHINE, own_from_flow=0.0211)
    assert "own steps are 0.0211 from the flow" in str(tuned)


def test_a_choice_that_changes_no_action_says_so():
    dense = Trial("dense", bac.Denoising(num_steps=10), 0.0, 0.0, error=0.0, p50_s=0.030, p95_s=0.031)
    coarser = replace(dense, denoising=bac.Denoising(num_steps=10, precision="bf16"))
    faster = trial(2, 0.04, p50_s=0.020)
    told = {way: str(Tuned(way, (faster, dense, coarser), BUDGET, MACHINE)) for way in (dense, coarser, faster)}
    words = "the choice is the policy's own run: no action changes"
    assert words in told[dense].splitlines()
    assert words not in told[coarser] + told[faster]
