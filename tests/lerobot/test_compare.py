"""`bac compare`: the policy, its files and fewer of its own steps play the same episodes in Push-T."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bac
from bac.cli import episodes
from bac.cli.episode_log import EpisodeLog
from bac.tuning.comparison import Comparison
from tests.lerobot.terminal import run

PUSHT = ["--env", "pusht", "--env-option", "episode_length=10"]
PUSHT += ["--env-option", "obs_type=environment_state_agent_pos"]  # two chunks of five actions
FEW = ["--quantity", "score", "--batch-size", "2", "--rounds", "2"]
WARNINGS = ("ignore::DeprecationWarning", "ignore::UserWarning")  # of pygame, where it is imported


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAC", "off")


@pytest.fixture
def policy(dit: Path, tmp_path: Path) -> Path:
    """A checkpoint of `multi_task_dit`, with a file of two steps beside it."""
    path = tmp_path / "CKPT"
    shutil.copytree(dit, path)
    bac.Denoising("DPM-Solver++", (60, 20)).save(path / "bac.json")
    return path


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.filterwarnings(*WARNINGS)
def test_a_table_a_picture_and_every_episode_lie_beside_the_policy(policy, monkeypatch):
    result = run("compare", "--policy-path", policy, *PUSHT, *FEW, "--steps", "3", "--episodes", "4")
    assert result.exit_code == 0, result.output
    compared = Comparison.load(policy / "bac.compared.json")
    assert [(way.name, way.evaluations) for way in compared.contenders] == [
        ("the policy itself", 7),
        ("bac.json: DPM-Solver++, 2 steps", 2),
        ("DDPM, 3 steps", 3),
        ("DPM-Solver++, 3 steps", 3),
    ]
    assert compared.num_episodes == 4 and compared.quantity == "score"
    assert str(compared) in result.output
    assert run("show", policy / "bac.compared.json").output == f"{compared}\n"
    assert (policy / "bac.compared.png").stat().st_size > 1000
    assert len((policy / "bac.compared.jsonl").read_text().splitlines()) == 4 * 4

    # The same line with more episodes plays only what is new; all that was played is kept.
    played: list[int] = []
    results = episodes._results
    monkeypatch.setattr(episodes, "_results", lambda *given: played.append(1) or results(*given))
    result = run("compare", "--policy-path", policy, *PUSHT, *FEW, "--steps", "3", "--episodes", "6")
    assert result.exit_code == 0 and len(played) == 4  # one group of two episodes for each way
    more = Comparison.load(policy / "bac.compared.json")
    assert [way.results[:4] for way in more.contenders] == [way.results for way in compared.contenders]


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.filterwarnings(*WARNINGS)
def test_after_ctrl_c_the_table_says_how_far_it_came(policy, monkeypatch):
    results, played = episodes._results, []

    def stopped(*given):
        played.append(1)
        if len(played) == 4:
            raise KeyboardInterrupt
        return results(*given)

    monkeypatch.setattr(episodes, "_results", stopped)
    result = run("compare", "--policy-path", policy, *PUSHT, *FEW, "--no-rivals", "--episodes", "6")
    assert result.exit_code == 0, result.output
    assert "Stopped after 2 of 6 episodes" in result.output
    assert Comparison.load(policy / "bac.compared.json").num_episodes == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--margin", "1"], "must be in (0, 1), got 1"),
        (["--quantity", "joy"], "must be one of success, score"),
        (["--file", "nowhere.json"], "there is no such file"),
        (["--steps", "0"], "must be at least 1, got 0"),
        (["--output", "nowhere/table.json"], "there is no folder nowhere"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_compared_is_one_sentence(policy, options, sentence):
    result = run("compare", "--policy-path", policy, *PUSHT, *options, "--rounds", "2")
    assert result.exit_code != 0 and isinstance(result.exception, SystemExit)
    assert sentence in " ".join(result.output.replace("│", " ").split())


def test_a_file_of_another_policy_is_refused_before_anything_is_played(policy, monkeypatch):
    monkeypatch.setattr(episodes, "playing", lambda *_, **__: pytest.fail("it played"))
    schedule = bac.Schedule(7, {"block that is not there": (0, 3)})
    bac.Denoising(schedule=schedule).save(policy / "bac.json")
    result = run("compare", "--policy-path", policy, *PUSHT, "--rounds", "2")
    assert result.exit_code == 1 and "block that is not there" in result.output


WAY = bac.Denoising(num_steps=3)


def test_results_of_a_setting_are_found_again_and_those_of_another_are_not(tmp_path):
    path = tmp_path / "log.jsonl"
    assert EpisodeLog(path, {"env": "pusht"})(WAY, [0, 1], lambda: [0.25, 1.0]) == [0.25, 1.0]
    assert EpisodeLog(path, {"env": "pusht"})(WAY, [1, 0], pytest.fail) == [1.0, 0.25]
    assert EpisodeLog(path, {"env": "libero"})(WAY, [0], lambda: [0.5]) == [0.5]
    assert EpisodeLog(path, {"env": "pusht"})(bac.Denoising(num_steps=2), [0], lambda: [0.75]) == [0.75]


def test_a_line_that_was_cut_off_is_played_again(tmp_path):
    path = tmp_path / "log.jsonl"
    EpisodeLog(path, {})(WAY, [0, 1], lambda: [0.25, 1.0])
    path.write_text(path.read_text()[:-20])
    log = EpisodeLog(path, {})
    assert log(WAY, [0], pytest.fail) == [0.25]
    assert log(WAY, [1], lambda: [0.5]) == [0.5]
    assert EpisodeLog(path, {})(WAY, [0, 1], pytest.fail) == [0.25, 0.5]
