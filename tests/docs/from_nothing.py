"""From nothing to one's own policy running faster, timed: ``python tests/docs/from_nothing.py``.

It clones this repository, installs it as README says into an environment of its own, leaves the clone, makes a
checkpoint of LeRobot's `diffusion` with random weights, and types what docs/first-speedup.md says until the policy
replays. It needs `git`, Python 3.12 and `uv`; packages come from uv's cache if they are there. It is no test: it takes
minutes and installs packages.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENT = "./clone[cli,lerobot,diffusers]"
CHECKPOINT = """
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (2,)),
          "observation.environment_state": PolicyFeature(FeatureType.ENV, (16,))}
config = DiffusionConfig(input_features=inputs, output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
                         device="cpu", push_to_hub=False, down_dims=(32, 64, 128), num_inference_steps=100)
DiffusionPolicy(config).save_pretrained("CKPT")
for processor in make_pre_post_processors(config):
    processor.save_pretrained("CKPT")
"""
CHUNKS = """
import time, torch
batch = {"observation.state": torch.rand(1, 2, 2), "observation.environment_state": torch.rand(1, 2, 16)}
for number in range(1, 6):
    begun = time.process_time()
    policy.predict_action_chunk(dict(batch))
    print(f"    chunk {number}: {time.process_time() - begun:.2f} s of CPU time")
print(bac.describe(policy))
"""


class Way:
    """Runs commands in one folder and says how long each took.

    Args:
        folder: A fresh one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun = folder, time.monotonic()
        self.path = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def run(self, what: str, *command: str | Path) -> None:
        """Run a command; its output is shown if it fails, or if it is Python's."""
        begun = time.monotonic()
        environment = {**os.environ, "PATH": self.path, "VIRTUAL_ENV": str(self.folder / "venv")}
        done = subprocess.run(
            [str(word) for word in command], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        print(f"{time.monotonic() - begun:7.1f} s  {what}", flush=True)
        if done.returncode or command[0] == "python":
            print(done.stdout[-3000:], done.stderr[-3000:] if done.returncode else "", sep="")
        if done.returncode:
            sys.exit(f"{what}: exit status {done.returncode}")


def go(uv: Sequence[str], python: str) -> None:
    """Go the way, in a folder that is removed at the end."""
    page = (ROOT / "docs" / "first-speedup.md").read_text()
    first_block = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)[0]
    with tempfile.TemporaryDirectory() as place:
        way = Way(Path(place))
        way.run("git clone", "git", "clone", "--quiet", ROOT, "clone")
        way.run("an environment", *uv, "venv", "--quiet", "--python", python, "venv")
        way.run(
            "pip install '.[cli,lerobot,diffusers]'", *uv, "pip", "install", "--python", "venv/bin/python", REQUIREMENT
        )
        way.run("a checkpoint of random weights, of LeRobot's diffusion", "python", "-c", CHECKPOINT)
        way.run("bac --version", "bac", "--version")
        way.run("bac doctor", "bac", "doctor", "--policy-path", "CKPT")
        way.run("bac.wrap(policy), and five chunks", "python", "-c", first_block + CHUNKS)
        print(f"{time.monotonic() - way.begun:7.1f} s  from nothing to the first speed-up")


def go_bare(uv: Sequence[str], python: str) -> None:
    """Install the library alone, and wrap and replay the model of docs/wrap.md."""
    page = (ROOT / "docs" / "wrap.md").read_text()
    with tempfile.TemporaryDirectory() as place:
        way = Way(Path(place))
        way.run("git clone", "git", "clone", "--quiet", ROOT, "clone")
        way.run("an environment", *uv, "venv", "--quiet", "--python", python, "venv")
        way.run("pip install .", *uv, "pip", "install", "--python", "venv/bin/python", "./clone")
        way.run("docs/wrap.md", "python", "-c", re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--uv", nargs="+", default=[sys.executable, "-m", "uv"], help="how uv is called")
    parser.add_argument("--python", default="3.12", help="Python for the environment")
    parser.add_argument("--bare", metavar="PYTHON", help="instead: the library alone, in such a Python (3.10)")
    given = parser.parse_args()
    go_bare(given.uv, given.bare) if given.bare else go(given.uv, given.python)
