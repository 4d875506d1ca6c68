"""One server, many robots: arithmetic one can do in one's head."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.experiments.fleet.queueing import BatchedServer, fed, responses

SERVER = BatchedServer({1: 0.1, 2: 0.125, 4: 0.2})


def test_a_batch_is_padded_to_the_next_size():
    assert [SERVER.of(batch) for batch in (1, 2, 3, 4)] == [0.1, 0.125, 0.2, 0.2]


def test_throughput_alone_feeds_twenty_chunks_a_second():
    assert SERVER.chunks_per_s == 20  # four in 0.2 s
    assert SERVER.saturated(0.8) == 16


def test_a_robot_that_is_alone_waits_for_its_own_batch_only():
    assert responses(SERVER, 1, 0.8, cycles=3) == pytest.approx([0.1] * 3)


def test_who_asks_while_the_server_is_busy_waits_for_that_batch_and_its_own(monkeypatch):
    phases = iter([0.0, 0.05, 0.06])
    monkeypatch.setattr(
        "eval.experiments.fleet.queueing.random.Random", lambda seed: SimpleNamespace(uniform=lambda a, b: next(phases))
    )
    # at 0.1 the two that came meanwhile begin together and take 0.125 s
    assert responses(SERVER, 3, 10.0, cycles=1) == pytest.approx([0.1, 0.225 - 0.06, 0.225 - 0.05])


def test_more_than_the_largest_batch_go_in_turns(monkeypatch):
    monkeypatch.setattr(
        "eval.experiments.fleet.queueing.random.Random", lambda seed: SimpleNamespace(uniform=lambda a, b: 0.0)
    )
    # the first is taken alone; then four, then two
    assert responses(BatchedServer({1: 1.0, 4: 1.0}), 7, 100.0, cycles=1) == [1.0] + [2.0] * 4 + [3.0] * 2


@given(st.integers(1, 30), st.floats(0.2, 2.0))
def test_every_chunk_is_answered_and_none_sooner_than_a_batch_takes(robots, chunk_s):
    waits = responses(SERVER, robots, chunk_s, cycles=4)
    assert len(waits) == 4 * robots
    assert waits[0] >= 0.1 - 1e-9


def test_robots_are_fed_while_none_waits_too_long():
    robots = fed(SERVER, 0.8, 0.7)
    assert 0 < robots <= 16
    assert responses(SERVER, robots, 0.8)[-1] <= 0.7
    assert fed(SERVER, 0.8, 0.05) == 0  # not even one: its own batch takes 0.1 s


def test_a_server_without_a_size_is_refused():
    with pytest.raises(ValueError, match="positive latencies"):
        BatchedServer({})
    with pytest.raises(ValueError, match="positive latencies"):
        BatchedServer({1: 0.0})


@pytest.mark.slow
def test_the_table_and_its_words(tmp_path):
    pytest.importorskip("hydra")
    from hydra import compose, initialize_config_dir

    from eval.experiments.fleet.experiment import Demand, table_of
    from eval.experiments.fleet.report import publish
    from eval.measure.latency import Latency
    from eval.setup.config import CONFIGS

    with initialize_config_dir(CONFIGS, version_base="1.3"):
        options = compose("fleet").fleet
    assert Demand(10.0, 8, 15).chunk_s == 0.8 and Demand(10.0, 8, 15).slack_s == 0.7

    def latency(ms):
        return Latency(ms, ms, 1.0, 3, 0, "wall")

    measured = {"dense": {1: latency(1000.0), 4: latency(4000.0)}, "cached": {1: latency(100.0), 4: latency(200.0)}}
    policy = SimpleNamespace(horizon=16, n_obs_steps=2, n_action_steps=8)
    table = table_of(measured, policy, options)
    ten = {row["method"]: row for row in table["robots"] if row["control_hz"] == 10}
    assert (ten["dense"]["saturated_robots"], ten["dense"]["robots"]) == (0, 0)
    assert ten["cached"]["saturated_robots"] == 16
    assert 700 < ten["cached"]["oldest_observation_ms"] <= 700 + 700
    publish(
        table,
        tmp_path,
        {"device": "a core", "date": "today", "cores": 2, "command": "python -m eval.experiments.fleet"},
    )
    words = (tmp_path / "README.md").read_text()
    assert "| cached | 100 / 100 | 200 / 200 | 20.0 |" in words
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "table.json",
        "batched.png",
        "provenance.json",
    }


@pytest.mark.slow
@pytest.mark.sim
def test_every_contender_is_timed_at_every_batch_size(pusht_settings):
    from eval.compared.comparison import Comparison
    from eval.experiments.fleet.experiment import measure_fleet

    few = {"num_observations": 3, "num_draws": 1, "num_observation_episodes": 1}
    comparison = Comparison(pusht_settings(max_episode_steps=20, **few))
    options = SimpleNamespace(num_updates=10, num_bubbled=2, few_steps=4, batches=[1, 5], rounds=1)
    table = measure_fleet(comparison, options)
    assert list(table) == ["dense, eager", "dense, replayed", "BAC S=10 n=2", "DDIM-4"]
    assert all(list(sizes) == [1, 5] for sizes in table.values())
    assert table["dense, eager"][1].speedup == 1.0
