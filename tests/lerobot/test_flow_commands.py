"""Three fitted steps, all the way: `bac tune`, then LeRobot's commands on SmolVLA and pi0.

SmolVLA is calibrated first, and tuned on the observations that were kept. pi0 is tuned on a data set. Push-T and the
robot give both what they take: two joints, and a camera that `--rename_map` gives its name.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from torch import Tensor

import bac
from bac.cli import checkpoint as reader

pytest.importorskip("num2words", reason="LeRobot's smolvla needs it")

from tests.lerobot import bench, checkpoints, commands, models
from tests.lerobot.terminal import numbers, run

pytestmark = pytest.mark.slow

PLUGINS = Path(__file__).parent / "plugins"
CHUNK = 12  # actions
CLASSES = {"smolvla": "SmolVLAPolicy", "pi0": "PI0Policy"}
CHOSEN = "fitted multistep, 3 steps"
RUNS = ["--runs", "4", "--batch-size", "2"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """`bac`, the robot, a witness of Push-T and a small pi0, installed as plug-ins."""
    folder = commands.install(tmp_path_factory.mktemp("site"), "lerobot_policy_bac")
    plugins = {"robot_simulated": "robot", "env_witness": "witness", "policy_small_gemma": "small_gemma"}
    for name, source in plugins.items():
        commands.install(folder, f"lerobot_{name}", PLUGINS / f"{source}.py")
    return [folder, commands.ROOT]


@pytest.fixture(scope="module", params=CLASSES)
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A checkpoint with what `bac tune` wrote beside it, and what the command said."""
    folder = tmp_path_factory.mktemp(request.param)
    options = {"state": 2, "chunk_size": CHUNK, "n_action_steps": CHUNK}
    path = getattr(checkpoints, request.param)(folder, **options)
    data = numbers(folder / "numbers", {"observation.state": 2, "action": 2}, camera=models.CAMERA)
    with pytest.MonkeyPatch.context() as patch, models.small_gemma("pi0"):
        patch.setenv("BAC", "off")
        where = [*data, *RUNS]
        if request.param == "smolvla":
            calibrated = run("calibrate", "--policy-path", path, *where, "--num-updates", "3")
            assert calibrated.exit_code == 0, calibrated.output
            where = []
        result = run("tune", "--policy-path", path, *where, "--evaluations", "2")
        assert result.exit_code == 0, result.output
        yield path, result.output


def follows(path: Path) -> str:
    return f"bac: {CLASSES[path.name]} follows {path / 'bac.json'}: {CHOSEN}"


def test_without_a_budget_three_fitted_steps_are_chosen_and_fit(tuned):
    path, said = tuned
    assert f"Denoising: {CHOSEN}" in said and "3 fitted steps, because no budget was given" in said
    assert ("observations: those of bac calibrate" in said) == (path.name == "smolvla")
    assert f"bac.json fits: LeRobot runs {CHOSEN}" in run("doctor", "--policy-path", path).output


@pytest.mark.sim
def test_lerobot_eval_follows_it(tuned, site, tmp_path):
    pytest.importorskip("gym_pusht")
    path, _ = tuned
    arguments = [f"--policy.path={path}", "--policy.device=cpu", "--env.type=pusht", "--output_dir=out"]
    arguments += ["--env.obs_type=pixels_agent_pos", "--env.episode_length=14", "--eval.n_episodes=1"]
    arguments += ["--eval.batch_size=1", f'--rename_map={{"observation.image": "{models.CAMERA}"}}']
    witness = tmp_path / "actions"
    module = "lerobot.scripts.lerobot_eval"
    command = commands.start(module, *arguments, folder=tmp_path, log="log", paths=site, WITNESS=str(witness))
    said = command.finish()
    assert follows(path) in said
    check(json.loads(line) for line in witness.read_text().splitlines())


ENGINES = [(), ("--inference.type=rtc", "--inference.rtc.execution_horizon=6")]


@pytest.mark.parametrize("engine", ENGINES)
def test_lerobot_rollout_follows_it(tuned, site, tmp_path, engine):
    path, _ = tuned
    diary = tmp_path / "diary"
    arguments = [f"--policy.path={path}", "--policy.device=cpu", "--robot.type=simulated", "--play_sounds=false"]
    arguments += [f"--robot.diary={diary}", f"--robot.calibration_dir={tmp_path}", '--robot.joints=["x.pos","y.pos"]']
    arguments += ["--task=push the block", "--fps=10", "--return_to_initial_position=false", *engine]
    module = "lerobot.scripts.lerobot_rollout"
    command = commands.start(module, *arguments, folder=tmp_path, log="log", paths=site, WITNESS="none")
    with contextlib.ExitStack() as stack:
        stack.callback(command.kill)
        moved = commands.wait_until(lambda: len(bench.actions(diary)) > CHUNK, 300)
        assert moved, command.output()[-3000:]
        command.interrupt()
        said = command.finish()
    assert follows(path) in said and "Rollout finished" in said
    assert ("RTC inference thread started" in said) == bool(engine)
    assert "error" not in said.lower()
    check(bench.actions(diary))


def check(actions: Any) -> None:
    """More than a chunk of finite actions."""
    found = list(actions)
    assert len(found) > CHUNK and all(math.isfinite(value) for action in found for value in action)


DELAY = 3  # actions that the robot executes while it waits for the next chunk


def test_what_was_committed_stays_near_the_old_chunk_as_with_ten_steps_of_its_own(tuned):
    path, _ = tuned
    loaded = reader.load(path)
    policy = loaded.policy
    policy.config.rtc_config = RTCConfig(execution_horizon=6)
    policy.init_rtc_processor()
    first, second = (loaded.random_observation(1, seed=seed) for seed in (1, 2))
    distances = []
    for way in (bac.Denoising(num_steps=10), bac.load(path / "bac.json")):
        bac.wrap(policy, way, replay=False)
        old = chunk(policy, first, None)[0, 4:]
        free, new = chunk(policy, second, None)[0], chunk(policy, second, old)[0]
        distances.append(float((new[:DELAY] - old[:DELAY]).abs().max()))
        assert float((free[:DELAY] - old[:DELAY]).abs().max()) > 1  # unguided it goes elsewhere
    assert distances[0] < 0.005 and distances[1] < 0.01


def chunk(policy: Any, batch: Any, left_over: Tensor | None) -> Tensor:
    """An action chunk, `[1, T, Da]`, normalised; other noise with guidance than without."""
    torch.manual_seed(int(left_over is not None))
    with torch.no_grad():
        return policy.predict_action_chunk(batch, inference_delay=DELAY, prev_chunk_left_over=left_over)
