"""The closed loop on an exact world: pairing, refill, history, time."""

import numpy as np
import pytest
import torch

from eval.play.rollout import EnvPool, chunk_generator, play, run_episodes

SEEDS = tuple(range(11))


@pytest.mark.parametrize("pool_size", [3, 7, 50])
def test_results_do_not_depend_on_the_pool(pool_size, make_loaded, make_world):
    alone = run_episodes(make_loaded(), make_world, SEEDS, pool_size=1, progress=False)
    pooled = run_episodes(make_loaded(), make_world, SEEDS, pool_size=pool_size, progress=False)
    assert pooled == alone


def test_an_ended_episode_makes_room_at_once(make_loaded, make_world):
    loaded = make_loaded()
    run_episodes(loaded, make_world, SEEDS, pool_size=4, progress=False)
    # 23 control steps are 8 chunks of 3: two full turns of 4 episodes, then 3 episodes.
    assert loaded.policy.batch_sizes == [4] * 16 + [3] * 8


def test_the_first_observation_is_repeated_and_the_newest_comes_last(make_loaded, make_world):
    loaded = make_loaded()
    run_episodes(loaded, make_world, [50], progress=False)
    first, second = loaded.policy.observations[0][0, :, 0], loaded.policy.observations[1][0, :, 0]
    assert first.tolist() == [0.5, 0.5]
    moves = 0.03 + 0.01 * torch.randn(3, 2, generator=chunk_generator(50, 0))[:, 0].double()
    assert second.tolist() == pytest.approx([0.5 + moves[:2].sum().item(), 0.5 + moves.sum().item()], abs=1e-6)


def test_episodes_end_on_success_or_at_the_time_limit(make_loaded, make_world):
    near, far = run_episodes(make_loaded(), make_world, [95, 0], progress=False)
    assert (near.success, near.score, near.num_control_steps) == (True, 1.0, 2)
    assert (far.success, far.num_control_steps) == (False, 23)
    assert far.score == pytest.approx(23 * 0.03, abs=0.15)


def test_the_noise_of_a_chunk_is_fixed_for_ever():
    assert chunk_generator(3, 5).initial_seed() == 7945162414471971975
    seeds = {chunk_generator(s, c).initial_seed() for s in range(40) for c in range(40)}
    assert len(seeds) == 1600


def test_a_thinking_policy_lets_the_world_go_on(make_loaded, make_world):
    def drift(last_action, observation):
        return np.array([0.1 if last_action is None else 0.0])

    pool = EnvPool(make_world)
    (result,) = play(make_loaded(), pool, [0], think_steps=2, hold=drift)
    # Chunks of 3 behind 2 steps of waiting: 5, 10, 15, 20, then 2 more waiting and 1 executed: 13 moves, 2 drifts.
    noise = torch.cat([torch.randn(3, 2, generator=chunk_generator(0, c))[:, 0] for c in range(5)])[:13]
    assert result.num_control_steps == 23
    assert result.score == pytest.approx(0.1 + 0.03 * 13 + 0.01 * noise.sum().item(), abs=1e-5)


def test_thinking_without_a_hold_is_refused(make_loaded, make_world):
    with pytest.raises(ValueError, match="hold="):
        next(play(make_loaded(), EnvPool(make_world), [0], think_steps=1))
