"""`bac compare`: the policy, its files and fewer of its own steps play the same episodes in Push-T."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import pytest
from gymnasium.vector import SyncVectorEnv

import bac
from bac.certificate import Certificate, file_hash
from bac.cli import checkpoint as checkpoints
from bac.cli import episodes
from bac.cli.contenders import Clock
from bac.cli.episode_log import EpisodeLog
from bac.errors import BacError
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
    monkeypatch.setattr("bac.cli.contenders.as_fast", lambda *_: 4)  # so many the machine would say take as long
    result = run("compare", "--policy-path", policy, *PUSHT, *FEW, "--steps", "3", "--episodes", "4")
    assert result.exit_code == 0, result.output
    compared = Comparison.load(policy / "bac.compared.json")
    assert [(way.name, way.evaluations) for way in compared.contenders] == [
        ("the policy itself", 7),
        ("bac.json: DPM-Solver++, 2 steps", 2),
        *[(f"{count} own steps, DDPM", count) for count in (4, 3, 2)],  # two are as many as the file's
        *[(f"{count} steps of DPM-Solver++", count) for count in (4, 3, 2)],
    ]
    assert compared.num_episodes == 4 and compared.quantity == "score"
    assert str(compared) in result.output
    assert run("show", policy / "bac.compared.json").output == f"{compared}\n"
    assert (policy / "bac.compared.png").stat().st_size > 1000
    assert len((policy / "bac.compared.jsonl").read_text().splitlines()) == 8 * 4 + 1

    # The same line with more episodes plays only what is new; all that was played is kept.
    monkeypatch.setattr("bac.cli.contenders.as_fast", pytest.fail)  # what the machine said is remembered
    played: list[int] = []
    results = episodes._results
    monkeypatch.setattr(episodes, "_results", lambda *given: played.append(1) or results(*given))
    result = run("compare", "--policy-path", policy, *PUSHT, *FEW, "--steps", "3", "--episodes", "6")
    assert "8 ways, 6 episodes each; 32 were played before" in result.output
    assert result.exit_code == 0 and len(played) == 8  # one group of two episodes for each way
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
    assert result.exit_code == 130, result.output
    assert "Stopped after 2 of 6 episodes. The same line goes on" in result.output
    assert Comparison.load(policy / "bac.compared.json").num_episodes == 2


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.filterwarnings(*WARNINGS)
def test_what_the_verdict_names_is_written_where_lerobot_follows_it(policy, monkeypatch):
    """A tiny random policy never wins, so the test says which way does."""
    monkeypatch.setattr("bac.cli.contenders.as_fast", lambda *_: 4)  # so many the machine would say take as long
    line = [
        "compare",
        "--policy-path",
        policy,
        *PUSHT,
        *FEW,
        "--steps",
        "3",
        "--episodes",
        "2",
        "--executor",
        "interpret",
    ]
    followed, before = policy / "bac.json", (policy / "bac.json").read_text()
    assert "The verdict names no way" in run(*line, "--take", followed).output

    monkeypatch.setattr(Comparison, "recommended", property(lambda found: found.contenders[1]))
    result = run(*line, "--take", followed)
    assert f"LeRobot's commands follow it already: {followed}" in result.output
    assert followed.read_text() == before

    monkeypatch.setattr(Comparison, "recommended", property(lambda found: found.contenders[-1]))
    result = run(*line)
    assert f"Type the line again with --take {followed}" in result.output and followed.read_text() == before
    verdict = "shown", "pusht", "tuned", "the policy itself", "score", 61, 0.0, -0.04, 0.04, 0.05, 0.95, 0
    hashes = file_hash(followed), file_hash(policy / "model.safetensors")
    Certificate(*verdict, *hashes, "", "", "").save(policy / "certificate.json")
    monkeypatch.setattr(Clock, "__call__", lambda *_: pytest.fail("it timed again, and might name another way"))
    result = run(*line, "--take", followed)
    assert result.exit_code == 0 and f"2 steps of DPM-Solver++: written to {followed}" in result.output
    assert (policy / "bac.before.json").read_text() == before  # nothing is lost
    assert (policy / "certificate.before.json").is_file() and Certificate.beside(followed) is None
    way = bac.load(followed)
    assert (way.solver.name, way.num_steps) == ("DPM-Solver++", 2)
    bac.wrap(checkpoints.load(policy).policy, way, replay=False)  # of this policy, by its fingerprint
    assert way.fingerprint is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--margin", "1"], "must be in (0, 1), got 1"),
        (["--quantity", "joy"], "must be one of success, score"),
        (["--file", "nowhere.json"], "there is no such file"),
        (["--steps", "0"], "must be at least 1, got 0"),
        (["--steps", "7"], "must be fewer than the policy's own 7, got 7"),
        (["--steps", "3", "--no-rivals"], "give one of them"),
        (["--output", "table.png"], "must end in .json, got table.png"),
        (["--output", "nowhere/table.json"], "there is no folder nowhere"),
        (["--take", "nowhere/bac.json"], "there is no folder nowhere"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_compared_is_one_sentence(policy, options, sentence):
    result = run("compare", "--policy-path", policy, *PUSHT, *options, "--rounds", "2")
    assert result.exit_code != 0 and isinstance(result.exception, SystemExit)
    assert sentence in " ".join(result.output.replace("│", " ").split())


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.filterwarnings(*WARNINGS)
def test_a_file_of_another_policy_is_refused_before_anything_is_played(policy, monkeypatch):
    monkeypatch.setattr("bac.cli.comparing.play_all", lambda *_, **__: pytest.fail("it played"))
    schedule = bac.Schedule(7, {"block that is not there": (0, 3)})
    bac.Denoising(schedule=schedule).save(policy / "bac.json")
    result = run("compare", "--policy-path", policy, *PUSHT, "--rounds", "2")
    assert result.exit_code == 1 and "block that is not there" in result.output


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.filterwarnings(*WARNINGS)
def test_without_a_file_and_without_rivals_there_is_nothing_to_compare(policy):
    (policy / "bac.json").unlink()
    result = run("compare", "--policy-path", policy, *PUSHT, "--no-rivals", "--rounds", "2")
    assert result.exit_code == 1 and "there is nothing to compare the policy with" in result.output


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.filterwarnings(*WARNINGS)
def test_another_seed_or_configuration_plays_anew(policy, monkeypatch):
    """What a policy does may lie in its configuration alone, so results of another one are not taken."""
    log: list[tuple[int, int]] = []
    monkeypatch.setattr(EpisodeLog, "count", lambda self, ways, seeds: log.append((len(self._results), seeds[0])) or 0)
    line = ["compare", "--policy-path", policy, *PUSHT, *FEW, "--no-rivals", "--episodes", "2"]
    assert run(*line).exit_code == 0
    assert run(*line, "--seed", "1").exit_code == 0
    config = policy / "config.json"
    config.write_text(config.read_text().replace('"n_action_steps": 5', '"n_action_steps": 4'))
    assert run(*line).exit_code == 0
    assert log == [(0, 10_000_000), (4, 10_100_000), (0, 10_000_000)]


class Resets(gymnasium.Env):
    """As LIBERO's worlds of LeRobot: where an episode begins says a count of resets, and not the seed."""

    observation_space = gymnasium.spaces.Discrete(1000)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, index: int) -> None:
        self.init_state_id = index

    def reset(self, *, seed=None, options=None):
        self.init_state_id += 2
        return self.init_state_id - 2, {}


def test_worlds_that_count_their_resets_begin_where_the_episode_says_for_every_way(monkeypatch):
    tasks = [SyncVectorEnv([lambda i=i: Resets(i) for i in range(2)]) for _ in range(2)]
    began: list[tuple[int, ...]] = []
    rolled = lambda world, *_, seeds: began.append((tasks.index(world), *map(int, world.reset()[0])))  # noqa: E731
    monkeypatch.setattr(episodes.lerobot, "named", lambda _: rolled)
    monkeypatch.setattr(episodes, "worlds_of", lambda *_: (tasks, ()))
    monkeypatch.setattr(episodes, "running", lambda *_, **__: nullcontext())
    monkeypatch.setattr(episodes, "_results", lambda *_: [1.0, 1.0])
    options = {"num_worlds": 2, "quantity": "success", "replay": False, "first_seed": 100}
    checkpoint = SimpleNamespace(policy=None, config=None, preprocessor=None, postprocessor=None)
    with episodes.playing(checkpoint, "libero", {}, **options) as play:
        assert play.turn == 4  # two of each task
        for seeds in ([100, 101], [102, 103], [104, 105]):
            play(bac.Denoising(), seeds)
            play(WAY, seeds)
    assert began == [(0, 0, 1), (0, 0, 1), (1, 0, 1), (1, 0, 1), (0, 2, 3), (0, 2, 3)]
    with pytest.raises(BacError, match="2 tasks in groups of 2 need a multiple of 4, got 6; type --episodes 8"):
        episodes.playing(checkpoint, "libero", {}, **options, num_episodes=6).__enter__()


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
