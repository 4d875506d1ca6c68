"""Turn demonstrations into a LeRobotDataset: ``python -m policies.make_dataset data/pusht.zarr datasets/pusht``.

The result trains with LeRobot's own trainer, from the root of this repository::

    PYTHONPATH=. lerobot-train --policy.discover_packages_path=policies --policy.type=diffusion_transformer \\
        --policy.push_to_hub=false --dataset.repo_id=local/pusht --dataset.root=datasets/pusht
"""

import argparse
import sys
from pathlib import Path

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tqdm import tqdm

from policies.demonstrations import Demonstrations


def make_dataset(demonstrations: Demonstrations, root: str | Path) -> LeRobotDataset:
    """Write every episode as a LeRobotDataset (version 3), with its pictures if the demonstrations have them.

    Args:
        demonstrations: Demonstrations whose `attrs` name the task and `control_hz` [Hz], which must be a whole number.
        root: Folder to create.

    Raises:
        FileExistsError: `root` exists.
        ValueError: Some control steps have no picture; a LeRobotDataset has one in every frame.
    """
    if demonstrations.drawn is not None:
        raise ValueError(
            f"pictures: {demonstrations.drawn.sum()} of {len(demonstrations.drawn)} control steps have one, and a "
            "LeRobotDataset needs all. Record them with draw_every=1: python -m envs.collect pixels=96"
        )
    root = Path(root)
    features = {
        key: {"dtype": "float32", "shape": array.shape[1:], "names": None}
        for key, array in demonstrations.arrays.items()
    }
    for key, pictures in demonstrations.cameras().items():
        features[key] = {"dtype": "image", "shape": pictures.shape[1:], "names": ["height", "width", "channels"]}
    fps = round(demonstrations.attrs["control_hz"])
    dataset = LeRobotDataset.create(f"local/{root.name}", fps, features, root=root, use_videos=False)
    task = demonstrations.attrs["task"]
    for index in tqdm(range(demonstrations.num_episodes), desc=root.name, unit="episode"):
        episode = demonstrations.episode(index)
        for rows in zip(*episode.values(), strict=True):
            dataset.add_frame({**dict(zip(episode, rows, strict=True)), "task": task})
        dataset.save_episode()
    dataset.finalize()
    return dataset


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demonstrations", type=Path, help="zarr replay buffer")
    parser.add_argument("root", type=Path, help="folder to create")
    arguments = parser.parse_args()
    try:
        dataset = make_dataset(Demonstrations.load(arguments.demonstrations, pictures=True), arguments.root)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{arguments.root}: {dataset.num_episodes} episodes, {dataset.num_frames} frames\n")


if __name__ == "__main__":
    main()
