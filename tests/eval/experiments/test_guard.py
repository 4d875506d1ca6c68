"""Streams of observations that a guard walks, and the whole command on a tiny random policy."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bac
from eval.experiments.guard.observations import Observations, dead_sensor, noisy, visit
from eval.experiments.guard.report import table, write
from eval.experiments.guard.streams import Streams, alarms, stream

HELD = bac.Schedule(3, {"a": (0,)})


def guard(**options) -> bac.Guard:
    usual = {("a", step): np.full(100, 0.5) for step in (1, 2)}
    return bac.Guard.of_errors(HELD, usual, **{"probe_every": 1, "num_cells": 2, "patience": 50, **options})


def observations() -> Observations:
    batch = {"observation.state": torch.ones(3, 2, 5), "observation.environment_state": torch.ones(3, 2, 7)}
    return Observations(batch, np.array([0, 0, 1]), np.array([0.0, 1.0, 0.0]))


def test_rows_are_spread_over_each_episode_from_first_to_last(make_world, make_loaded):
    loaded = make_loaded()  # its chunks begin at the control steps 0, 3, .. 21 of 23
    loaded.policy.diffusion = SimpleNamespace(use_solver=lambda *args, **options: None)
    visited = visit(loaded, make_world, [5, 11], 3)
    assert visited.batch["observation.environment_state"][:, -1, 0].tolist() == [0, 12, 21, 0, 12, 21]
    assert visited.batch["observation.state"][[0, 3], -1, 0].tolist() == pytest.approx([0.05, 0.11])
    assert visited.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert visited.phase.tolist() == [0, 0.5, 1, 0, 0.5, 1]
    late = visited.where(visited.phase > 0.5)
    assert late.batch["observation.environment_state"][:, -1, 0].tolist() == [21, 21]
    assert late.episode.tolist() == [0, 1]


def test_a_stream_is_whole_episodes_in_order_and_stops_at_its_length():
    rows = list(stream(np.array([0, 0, 0, 1, 1]), 1001, np.random.default_rng(0)))
    assert len(rows) == 1001
    assert {0: 1, 1: 2, 3: 4}.items() >= {a: b for a, b in zip(rows, rows[1:], strict=False) if a in (0, 1, 3)}.items()


def test_a_guard_cries_at_errors_above_the_calibrated_ones_and_at_no_others():
    calm = {("a", step): np.full(1, 0.5) for step in (1, 2)}
    wild = {("a", step): np.full(1, 0.6) for step in (1, 2)}
    assert alarms(guard(), calm, iter([0] * 50)) == []
    assert alarms(guard(), wild, iter([0] * 6)) == [2, 4, 6]  # one look makes the evidence 8.5, two 90


def test_every_stream_has_a_seed_of_its_own_and_its_length():
    wild = {("a", step): np.full(3, 0.6) for step in (1, 2)}
    found = Streams(5, 40).walk(guard(probe_every=3), wild, np.array([0, 0, 1]))
    assert len({tuple(chunks) for chunks in found}) == 5
    assert all(0 < chunk <= 40 for chunks in found for chunk in chunks)


def test_noise_has_its_size_and_a_dead_sensor_reads_zero():
    base = observations()
    many = Observations({"x": torch.zeros(1000, 10)}, base.episode, base.phase)
    assert noisy(many, 0.3).batch["x"].std().item() == pytest.approx(0.3, rel=0.05)
    dead = dead_sensor(base).batch
    assert dead["observation.environment_state"].abs().sum() == 0
    assert dead["observation.state"].sum() == 30


def test_the_table_says_what_was_not_seen(tmp_path):
    known = {"above": 0.01, "alarms_per_chunk": 0.0, "action_error": 0.1, "n": 5}
    rows = [
        {"name": "none", "alarmed": 0.0, "chunks_to_alarm": None, **known},
        {"name": "noise", "alarmed": 1.0, "chunks_to_alarm": 70.0, **known},
    ]
    assert "| none | 5 | 1.0 % | 0 % | - | 0.000 % | 0.100 |\n" in table(rows)
    write(tmp_path, "pusht", guard(), rows, None)
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == rows
    assert bac.Guard.load(tmp_path / "guard.json").limits == guard().limits
    assert (tmp_path / "shifts.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.sim
def test_the_whole_measurement_on_a_tiny_policy(tiny_checkpoint, tmp_path):
    from hydra import compose, initialize_config_dir

    from bac.adapters import find_host
    from eval.experiments.guard.cost import cost_of
    from eval.experiments.guard.experiment import GuardExperiment
    from eval.setup.config import CONFIGS
    from policies import load

    blocks = [block.name for block in find_host(load(tiny_checkpoint).policy).blocks]
    bac.Denoising(schedule=bac.Schedule(4, dict.fromkeys(blocks, (0, 2)))).save(tmp_path / "bac.json")
    few = "{episodes: 2, rows: 2}"
    overrides = ["policy=pusht", f"checkpoint={tiny_checkpoint}", f"schedule={tmp_path}/bac.json", "latency_rounds=3"]
    overrides += ["solver.num_steps=4", "env.max_episode_steps=20", "num_streams=2", "stream_chunks=50", "noise=[0.1]"]
    overrides += ["block_scales=[40]", f"calibration={few}", f"held_out={few}", f"shifted={few}"]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        experiment = GuardExperiment(compose("guard", overrides))
    shifts = list(experiment.shifts())
    assert [shift.name for shift in shifts] == [
        "none (held-out episodes)",
        "second half of episodes, calibrated on the first",
        "observation noise 0.1",
        "dead sensor (world's state constant)",
        "T of size 40 instead of 30",
    ]
    assert [shift.n for shift in shifts] == [4, 2, 4, 4, 4]
    assert experiment.guard.num_runs == 4
    assert all(0 <= shift.above <= 1 and shift.action_error > 0 for shift in shifts)
    assert 0 < cost_of(experiment, rounds=3)["mean_cost"] < 1
