"""From hydra's configuration (configs/eval.yaml) to settings and cells."""

import logging
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import OmegaConf

from bac.errors import BacError
from eval.setup.cells import Cell
from eval.setup.settings import Settings

GOES_ON = "stopped. Type the same command again: what is finished is not done again."
ROOT = Path(__file__).parents[2]
CONFIGS = str(ROOT / "configs")
PACKAGES = ("bac", "envs", "eval", "policies")


def settings_of(config: Any, *, of_many_tasks: bool = False) -> Settings:
    """The settings that a configuration describes.

    Args:
        config: ``configs/eval.yaml``, composed.
        of_many_tasks: The command plays the policy on a list of tasks.

    Raises:
        ValueError: The policy has many tasks, and the command plays one.
    """
    if config.get("tasks") and not of_many_tasks:
        raise ValueError(
            f"policy: {config.checkpoint} is told which of {len(config.tasks)} tasks to do, and this command plays "
            f"one task. Type: python -m eval.experiments.vla checkpoint={config.checkpoint} policy=metaworld_ten"
        )
    cache = config.cache
    return Settings(
        policy=config.checkpoint,
        env=config.env.name,
        task=config.env.task,
        env_options=env_options(OmegaConf.to_container(config.env, resolve=True)),
        realtime_options=OmegaConf.to_container(config.env.realtime, resolve=True),
        n=config.n,
        first_seed=config.first_seed,
        workers=config.workers,
        launcher=config.launcher.name,
        launcher_address=config.launcher.address,
        pool_size=config.pool_size,
        num_updates=cache.num_updates or 10,
        num_bubbled=cache.num_bubbled,
        num_observations=config.num_observations,
        num_draws=config.num_draws,
        num_observation_episodes=config.num_observation_episodes,
        executor=config.executor,
        latency_rounds=config.latency_rounds,
        few_steps=tuple(config.few_steps),
        sweep_updates=tuple(config.sweep.updates),
        sweep_bubbled=tuple(config.sweep.bubbled),
        tuned=tuned_file(config.tuned),
        realtime_n=config.realtime_n,
        outputs=Path(config.outputs),
    )


def tuned_file(tuned: bool | str | None) -> str | None:
    """The file beside the weights that ``tuned=`` names: ``bac.json`` for true, None for false, else its own name."""
    return "bac.json" if tuned is True else tuned or None


def cell_of(config: Any) -> Cell:
    """The one cell that `cache` and `solver` describe."""
    cache, solver = config.cache, config.solver
    title = f"{solver.name}-{solver.num_steps}"
    if cache.name != "dense":
        title = f"{cache.name} S={cache.num_updates} n={cache.num_bubbled} on {title}"
    return Cell(
        title,
        solver.name,
        solver.num_steps,
        cache.name,
        cache.num_updates,
        cache.num_bubbled,
        cache.force_last,
        solver.timestep_spacing,
    )


def env_options(env: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `envs.make`: all but the name, and the task of Push-T, which is its only one."""
    left_out = {"name", "task", "realtime"} if env["name"] == "pusht" else {"name", "realtime"}
    return {key: value for key, value in env.items() if key not in left_out}


def log_to_terminal(stopped: str = GOES_ON) -> None:
    """Print log messages without prefix on standard output, and hide chatter of noisy libraries.

    From now on Ctrl-C ends the command with one line instead of a traceback, and so does what was asked for and cannot
    be done.

    Args:
        stopped: The line for Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    for noisy in ("matplotlib", "imageio", "imageio_ffmpeg", "PIL", "lerobot", "diffusers", "OpenGL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write(f"\n{stopped}\n")
        elif is_refusal(error):
            sys.stderr.write(f"{error}\n")
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = tell
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or hydra prints errors itself


def is_refusal(error: BaseException) -> bool:
    """Whether an error says what is wrong with what was typed: this repository's code raised it, and no library's."""
    if not isinstance(error, (ValueError, FileNotFoundError, BacError)):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    place = Path(frame.f_code.co_filename)
    return any(place.is_relative_to(ROOT / package) for package in PACKAGES)
