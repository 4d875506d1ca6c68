"""A small SmolVLA and recordings for it, with sizes that no two axes share."""

from pathlib import Path

import hydra
import numpy as np
import zarr
from omegaconf import DictConfig

CONFIGS = str(Path(__file__).parents[2] / "configs")
SENTENCES = ("Open a drawer", "Turn it counter-clockwise")
SIZES = {"image_size": 8, "patch_size": 2, "vision_width": 6, "vision_layers": 1, "width": 16, "layers": 2, "heads": 2}
SMALL = [
    *(f"vlm.{name}={size}" for name, size in SIZES.items()),
    *("recipe=smolvla", "policy.chunk_size=5", "policy.n_action_steps=3", "policy.num_steps=2", "shift=1"),
    *("batch_size=7", "steps=4", "save_every=2", "log_every=2"),
]


def write_recordings(folder: Path, state: int = 3, *, wrist: bool = False) -> None:
    """One recording for each sentence, with pictures of 10 pixels, of a second camera too if asked for."""
    rng = np.random.default_rng(0)
    for number, (sentence, lengths) in enumerate(zip(SENTENCES, ([11, 13], [17, 6, 19]), strict=True)):
        attrs = {"env": "toy", "task": f"task-{number}", "control_hz": 10.0, "instruction": sentence}
        group = zarr.open_group(folder / f"{number}.zarr", mode="w", attributes=attrs)
        for name, size in {"state": state, "environment_state": 2, "action": 4}.items():
            group.create_array(f"data/{name}", data=rng.normal(size=(sum(lengths), size)).astype(np.float32))
        for name in ("pixels", "pixels_wrist") if wrist else ("pixels",):
            pictures = rng.integers(0, 256, (sum(lengths), 10, 10, 3)).astype(np.uint8)
            group.create_array(f"data/{name}", data=pictures)
        group.create_array("meta/episode_ends", data=np.cumsum(lengths))


def options_for(folder: Path, name: str, *overrides: str) -> DictConfig:
    """Compose `configs/train.yaml` for a tiny SmolVLA, trained on the recordings in `folder`."""
    paths = [f"data={folder}/*.zarr", f"output={folder}/{name}", f"state={folder}/{name}.pt"]
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return hydra.compose("train", [*SMALL, *paths, *overrides])
