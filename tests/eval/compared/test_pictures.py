"""The comparison of a policy that sees: its film and the world that does not wait show it pictures, too."""

import json

import pytest

from tests.policies.smolvla import write_recordings
from tests.policies.test_multi_task_dit import options_for

pytestmark = [pytest.mark.slow, pytest.mark.sim]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of a Multi-Task DiT by DDPM that has hardly learned, on one task of MetaWorld, from small pictures."""
    from eval.setup.settings import Settings
    from policies.train import train

    folder = tmp_path_factory.mktemp("sees")
    write_recordings(folder, state=4)
    train(options_for(folder, "policy", "policy.objective=diffusion", "steps=2", "policy.num_inference_steps=100"))
    return Settings(
        str(folder / "policy"),
        "metaworld",
        "reach-v3",
        {"task": "reach-v3", "max_episode_steps": 4, "width": 10, "height": 10},
        n=2,
        pool_size=2,
        workers=1,
        num_bubbled=1,
        num_observations=3,
        num_observation_episodes=1,
        num_distance_draws=2,
        latency_rounds=2,
        executor="interpret",
        few_steps=(2,),
        realtime_n=2,
        outputs=folder,
        progress=False,
    )


def test_the_whole_comparison_is_published_with_its_film(settings, tmp_path):
    from eval.compared.comparison import Comparison
    from eval.report.publish import publish

    comparison = Comparison(settings)
    comparison.calibrate()
    comparison.measure_latency()
    comparison.play()
    rows = publish(comparison, tmp_path)
    assert [row["name"] for row in json.loads((tmp_path / "table.json").read_text())] == [row.name for row in rows]
    assert (tmp_path / "realtime.mp4").stat().st_size > 0
    waited = {line.split(",")[1] for line in (tmp_path / "episodes.csv").read_text().splitlines()[1:]}
    assert len(waited) > 1  # in the world that waits, and in the one that does not


@pytest.mark.parametrize("mode", ["stand_still", "act"])
def test_a_world_that_does_not_wait_is_shown_to_it(settings, mode):
    from eval.play.realtime import Pace, hold_of, play_realtime
    from eval.play.rollout import EnvPool
    from eval.setup.cells import dense, running

    loaded, pool = settings.load_policy(), EnvPool(settings.make_env)
    with running(loaded.policy, dense(2, "DDIM")):
        played = list(play_realtime(loaded, pool, [0, 1], Pace.of([150.0], 10.0, mode), hold_of("metaworld")))
    pool.close()
    assert sorted((result.seed, result.num_control_steps) for result in played) == [(0, 4), (1, 4)]
