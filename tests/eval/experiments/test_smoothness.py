"""Jerk and success of two ways, on a tiny random policy in Push-T."""

import json

import pytest
from omegaconf import OmegaConf

import bac

pytestmark = [pytest.mark.slow, pytest.mark.sim]


@pytest.fixture(scope="module")
def config(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoothness")
    bac.Denoising("DPM-Solver++", (90, 40, 3)).save(folder / "chosen.json")
    env = {"name": "pusht", "task": "pusht", "max_episode_steps": 40}
    return OmegaConf.create(
        {
            "pool_size": 2,
            "file": str(folder / "chosen.json"),
            "control_hz": [50, 200],
            "tasks": [{"checkpoint": str(tiny_checkpoint), "env": env, "latency_ms": 15.0}],
            "ways": [{"name": "fresh noise"}, {"name": "blend 4", "blend_steps": 4}],
        }
    )


@pytest.fixture(scope="module")
def played(config, tmp_path_factory):
    from eval.experiments.smoothness import Task
    from eval.play.metered import MeteredResult
    from eval.play.records import EpisodeLog

    task = Task(config.tasks[0], config)
    log = EpisodeLog(tmp_path_factory.mktemp("log") / "log.jsonl", MeteredResult)
    task.play(range(3), log)
    return task, log


def test_every_way_plays_the_same_worlds_and_none_twice(played):
    task, log = played
    assert [(p.control_hz, p.way.name, p.pace.delays) for p in task.points] == [
        (50, "fresh noise", (1,)),
        (50, "blend 4", (1,)),
        (200, "fresh noise", (3,)),
        (200, "blend 4", (3,)),
    ]
    lines = log.path.read_text().splitlines()
    assert len(lines) == 4 * 3
    task.play(range(3), log)
    assert log.path.read_text().splitlines() == lines


def test_the_table_compares_every_way_with_the_first(played, tmp_path):
    from eval.experiments.smoothness import rows_of
    from eval.experiments.smoothness_report import publish

    task, log = played
    rows = rows_of(task, range(3), log)
    publish(rows, str(tmp_path))
    assert json.loads((tmp_path / "table.json").read_text()) == rows
    assert {path.name for path in tmp_path.iterdir()} == {"table.json", "table.md", "jerk.png", "provenance.json"}
    first, blended = rows[:2]
    assert (first["jerk_ratio"]["value"], first["difference"]["value"], first["n"]) == (1.0, 0.0, 3)
    assert blended["jerk_seam"] < first["jerk_seam"]


def test_a_log_is_read_again_with_its_jerk(played):
    from eval.play.metered import MeteredResult
    from eval.play.records import EpisodeLog

    task, log = played
    assert EpisodeLog(log.path, MeteredResult).episodes(task.points[0].key) == log.episodes(task.points[0].key)
