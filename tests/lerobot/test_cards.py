"""The line of `lerobot-eval` in every shipped checkpoint's card: `policies.model_card` writes it, and it runs."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from policies.model_card import evaluating
from tests.lerobot import commands

CHECKPOINTS = commands.ROOT / "policies" / "checkpoints"
PLUGIN = "lerobot_policy_diffusion_transformer"
SHIPPED = sorted(path.name for path in CHECKPOINTS.iterdir() if path.is_dir())
# One of each kind of policy, and one of each world
PLAYED = ["adroit-hammer", "assembly-v3-flow", "metaworld-ten", "pusht-flow", "so101-dit", "so101-pixels"]


def line_of(name: str) -> str:
    card = (CHECKPOINTS / name / "README.md").read_text()
    (line,) = re.findall(r"```bash\n(lerobot-eval .*?)\n```", card, flags=re.DOTALL)
    return line


@pytest.mark.parametrize("name", SHIPPED)
def test_the_line_is_that_of_what_the_policy_sees(name):
    card = (CHECKPOINTS / name / "README.md").read_text()
    env, tasks = re.search(r"at \d+ Hz \((\w+), ([^)]*)\)", card).groups()
    seen = json.loads((CHECKPOINTS / name / "config.json").read_text())["input_features"]
    sizes = [feature["shape"][-1] for feature in seen.values() if feature["type"] == "VISUAL"]
    facts = {
        "output": f"policies/checkpoints/{name}",
        "env": env,
        "pixels": sizes[0] if sizes else None,
        "wrist": "observation.images.wrist" in seen,
    }
    assert line_of(name) == evaluating(facts, "TASK" if "," in tasks else tasks)


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.parametrize("name", PLAYED)
def test_the_line_plays(name, tmp_path):
    _, *arguments = shlex.split(line_of(name).replace("\\\n", " ").replace("TASK", "door-open-v3"))
    source = commands.ROOT / "policies" / "plugin" / f"{PLUGIN}.py"
    site = [commands.install(tmp_path / "site", PLUGIN, source), commands.ROOT]
    shorter = ["--env.max_episode_steps=3", "--eval.n_episodes=1", f"--output_dir={tmp_path / 'out'}"]
    module, log = "lerobot.scripts.lerobot_eval", str(tmp_path / "log")
    commands.start(module, *arguments, *shorter, folder=commands.ROOT, log=log, paths=site).finish()
    assert json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]["n_episodes"] == 1
