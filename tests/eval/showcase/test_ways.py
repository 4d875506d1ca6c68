"""The eight ways of the demo, measured and played on a tiny random policy in Push-T."""

from __future__ import annotations

from dataclasses import replace

import pytest

import bac

pytestmark = [pytest.mark.slow, pytest.mark.sim]
TUNED = "four.json"


@pytest.fixture(scope="module")
def showcase(pusht_settings):
    from eval.compared.comparison import Comparison
    from eval.showcase.ways import Showcase

    settings = pusht_settings(
        max_episode_steps=11, n=2, pool_size=2, num_observations=3, num_observation_episodes=2, num_spacing_draws=2,
        latency_rounds=2, tuned=TUNED,
    )  # fmt: skip
    file = settings.checkpoint / TUNED
    bac.Denoising("DPM-Solver++", timesteps=(90, 60, 30, 5)).save(file)
    made = Showcase(Comparison(replace(settings, realtime_options={"max_episode_steps": 20})), num_late=1)
    made.play()
    yield made
    file.unlink()


def test_there_are_eight_ways_and_the_policy_as_it_is_comes_first(showcase):
    assert len(showcase.ways) == 8
    assert showcase.ways[0].title == "dense, as LeRobot runs it"
    assert showcase.ways[0].cell == showcase.ways[1].cell  # replay changes no action, so they share episodes
    assert [way.title.startswith("rival") for way in showcase.ways].count(True) == 2


def test_the_recommended_way_is_the_tuned_one(showcase):
    assert showcase.recommended.cell.denoising == bac.load(showcase.comparison.settings.checkpoint / TUNED)


def test_every_way_plays_in_both_worlds(showcase):
    assert all(len(showcase.lock_step(way)) == 2 and len(showcase.real_time(way)) == 1 for way in showcase.ways)


def test_a_second_look_measures_nothing_again(showcase):
    from eval.showcase.ways import Showcase

    again = Showcase(showcase.comparison, num_late=1)
    again._measured = None  # would fail if it were called
    assert again.ways == showcase.ways


def test_replay_alone_gives_the_same_actions(showcase):
    from eval.play.visit import visited
    from eval.setup.settings import CALIBRATION_SEED
    from eval.showcase.ways import replay_alone

    comparison = showcase.comparison
    one = visited(comparison.loaded, comparison.settings.make_env, CALIBRATION_SEED, 1, episodes=1)
    before, after = replay_alone(comparison, one, chunks=1)
    assert before > 0 and after > 0
