"""The wheel without this repository, in environments of its own: ``python tests/wheel_alone.py [FOLDER]``.

Not part of ``make test``, because it needs a package index and some minutes. It builds the wheel, and then

- in Python 3.10 with torch and numpy alone: imports `bac`, wraps a transformer policy, replays it, compares every bit;
- in Python 3.12 with the extras: `bac doctor`, `bac tune` and `bac bench` on a LeRobot `diffusion` checkpoint.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = (shutil.which("uv") or sys.exit("wheel_alone: needs uv; type pip install uv"),)
OBSERVED = "--env-option=obs_type=environment_state_agent_pos"

REPLAY = """
import torch
import bac

class Policy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layer = torch.nn.TransformerDecoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.decoder = torch.nn.TransformerDecoder(layer, 2)
        self.into, self.out = torch.nn.Linear(2, 16), torch.nn.Linear(16, 2)
        self.num_steps = 5
        self.eval()

    def reset(self):
        pass

    def predict_action_chunk(self, batch):
        x = torch.randn(len(batch["obs"]), 8, 2)
        for _ in range(self.num_steps):
            x = x - 0.1 * self.out(self.decoder(self.into(x), batch["obs"]))
        return x

def chunk(policy, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        return policy.predict_action_chunk({"obs": torch.ones(1, 4, 16)})

policy = Policy()
expected = [chunk(policy, seed) for seed in range(3)]
bac.wrap(policy, replay=bac.Replay(record="first"))
assert all(torch.equal(chunk(policy, seed), was) for seed, was in enumerate(expected))
assert bac.describe(policy).num_replays == 2
print("replayed, every bit the same")
"""

CHECKPOINT = """
import sys
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

sizes = {"observation.state": ("STATE", 2), "observation.environment_state": ("ENV", 16)}
config = DiffusionConfig(
    device="cpu", down_dims=(32, 64), num_train_timesteps=10, push_to_hub=False,
    input_features={name: PolicyFeature(FeatureType[kind], (size,)) for name, (kind, size) in sizes.items()},
    output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
)
shapes = {"action": 2, **{name: size for name, (_, size) in sizes.items()}}
stats = {name: {"min": torch.zeros(n), "max": torch.full((n,), 512.0)} for name, n in shapes.items()}
torch.manual_seed(0)
DiffusionPolicy(config).save_pretrained(sys.argv[1])
for processor in make_pre_post_processors(config, dataset_stats=stats):
    processor.save_pretrained(sys.argv[1])
"""


def main(folder: Path) -> None:
    """Build, install, run; the first command that fails ends it."""
    run(*UV, "build", "--wheel", "--out-dir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")

    alone = environment(folder / "alone", "3.10", str(wheel))
    run(alone / "python", "-c", REPLAY, cwd=folder)

    full = environment(folder / "full", "3.12", f"{wheel}[cli,lerobot,diffusers]", "lerobot[diffusion,pusht]")
    checkpoint = folder / "checkpoint"
    run(full / "python", "-c", CHECKPOINT, checkpoint, cwd=folder)
    run(full / "bac", "doctor", "--policy-path", checkpoint, cwd=folder)
    tune = ("--env", "pusht", OBSERVED, "--target-hz", "2", "--runs", "4", "--batch-size", "2", "--evaluations", "2")
    run(full / "bac", "tune", "--policy-path", checkpoint, *tune, cwd=folder)
    run(full / "bac", "bench", "--policy-path", checkpoint, "--rounds", "2", cwd=folder)
    sys.stdout.write(f"the wheel alone works; environments and checkpoint are in {folder}\n")


def environment(folder: Path, python: str, *packages: str) -> Path:
    """Make an environment with some packages. Returns the folder of its programs."""
    run(*UV, "venv", "--quiet", "--allow-existing", "--python", python, folder)
    run(*UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *packages)
    return folder / "bin"


def run(*command: object, cwd: Path = ROOT) -> None:
    """Run a command, and print it before."""
    words = [str(word) for word in command]
    sys.stdout.write("$ " + " ".join(word if "\n" not in word else "..." for word in words) + "\n")
    sys.stdout.flush()
    subprocess.run(words, cwd=cwd, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
