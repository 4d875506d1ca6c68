"""Episodes decide between the ways of a tuning. Here a way succeeds as often as its number of steps says."""

import pytest

import bac
from bac.tuning import Budget, Trial, Tuned
from bac.tuning.closed_loop import candidates, decide
from bac.tuning.machine import Machine


def trial(steps, error):
    return Trial("fewer steps", bac.Denoising(num_steps=steps), error, error, p50_s=0.001 * steps, p95_s=0.0011 * steps)


WAYS = [trial(2, 0.4), trial(3, 0.3), trial(4, 0.2), trial(5, 0.15), trial(6, 0.1)]
SLOW = trial(8, 0.05)  # nearer, but slower than the choice
CHOICE = WAYS[-1]


@pytest.fixture
def tuned():
    return Tuned(CHOICE, (*WAYS, SLOW), Budget.of(target_latency_s=0.007), Machine(0.0, 0.001, 0.0))


class World:
    """Ways of `enough` steps or more succeed in every episode, as the policy itself; others in every second one."""

    def __init__(self, enough):
        self.enough, self.asked = enough, []

    def __call__(self, way, seeds):
        self.asked.append((way.num_steps, tuple(seeds)))
        return [1.0 if way.num_steps is None or way.num_steps >= self.enough else seed % 2 for seed in seeds]


def test_the_fastest_way_that_is_shown_wins(tuned):
    decision = decide(tuned, World(enough=4), num_episodes=300, progress=False)
    assert decision.is_shown
    assert decision.tuned.denoising.num_steps == 4
    assert [(played.trial.denoising.num_steps, played.outcome.verdict) for played in decision.played] == [
        (3, "refuted"),
        (4, "shown"),
    ]
    assert decision.tuned.chosen in decision.tuned.trials


def test_what_loses_is_refuted_after_few_pairs_and_what_is_equal_takes_about_a_hundred(tuned):
    refuted, shown = decide(tuned, World(enough=4), num_episodes=300, progress=False).played
    assert refuted.outcome.n < 40
    assert 80 < shown.outcome.n < 130
    assert refuted.difference[2] < -0.05 < shown.difference[1] < 0.0 == shown.difference[0]


def test_where_tasks_take_turns_a_verdict_comes_after_a_whole_turn(tuned):
    decision = decide(tuned, World(enough=4), num_episodes=300, at_once=10, turn=30, progress=False)
    assert [played.outcome.n % 30 for played in decision.played] == [0, 0]
    assert decision.tuned.denoising.num_steps == 4


def test_if_none_is_shown_the_tuning_s_own_choice_stays_and_the_report_warns(tuned):
    decision = decide(tuned, World(enough=7), num_episodes=300, progress=False)
    assert decision.tuned is tuned
    assert not decision.is_shown
    assert "WARNING: none was shown" in str(decision)
    assert len(decision.played) == 4


def test_the_policy_itself_plays_every_episode_once(tuned):
    world = World(enough=7)
    decide(tuned, world, num_episodes=60, at_once=20, first_seed=5, progress=False)
    own = [seed for steps, seeds in world.asked if steps is None for seed in seeds]
    assert sorted(own) == sorted(set(own))
    assert min(own) == 5


def test_the_confidence_is_shared_among_the_ways(tuned):
    decision = decide(tuned, World(enough=0), num_episodes=300, confidence=0.96, progress=False)
    assert decision.chosen.outcome.confidence == pytest.approx(0.99)


def test_only_the_choice_and_faster_ways_on_the_front_play(tuned):
    assert [way.denoising.num_steps for way in candidates(tuned)] == [3, 4, 5, 6]
    assert [way.denoising.num_steps for way in candidates(tuned, most=1)] == [5, 6]


def test_fewer_of_the_policy_s_own_steps_play_though_fitted_ones_are_nearer():
    fitted = [
        Trial("fitted", bac.Denoising("Euler", times), error, error, p50_s=0.001 * len(times))
        for times, error in (((0.8, 0.2), 0.1), ((0.8, 0.3, 0.1), 0.05))
    ]
    own = [trial(2, 0.4), trial(3, 0.3), trial(4, 0.2)]
    tuned = Tuned(fitted[-1], (*fitted, *own), Budget.of_steps(3), Machine(0.0, 0.001, 0.0))
    assert [(way.family, way.denoising.num_evaluations) for way in candidates(tuned)] == [
        ("fitted", 2),
        ("fewer steps", 2),
        ("fitted", 3),
        ("fewer steps", 3),
    ]


def test_results_out_of_range_are_refused(tuned):
    with pytest.raises(ValueError, match="must be in"):
        decide(tuned, lambda way, seeds: [2.0] * len(seeds), num_episodes=3, progress=False)
    with pytest.raises(ValueError, match="at least 1"):
        decide(tuned, World(0), num_episodes=0, progress=False)


def test_a_report_names_every_way_with_its_verdict(tuned):
    text = str(decide(tuned, World(enough=4), num_episodes=300, progress=False))
    assert "closed loop: success minus the policy's own, paired; margin 0.05" in text
    assert "-> fewer steps, own solver, 4 steps, p50 4.0 ms: shown after" in text
