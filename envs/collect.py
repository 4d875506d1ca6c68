"""Collect the demonstrations of one task. ``python -m envs.collect --help`` shows every option.

::

    python -m envs.collect env=metaworld task=assembly-v3 episodes=100              # MetaWorld's scripted expert
    python -m envs.collect env=adroit task=adroit-door source=adroit_experts.npz    # a published expert
    python -m envs.collect env=so101 noise=0.05                                     # its scripted controller
    python -m envs.collect env=pusht source=pusht_cchi_v7_replay.zarr               # the 206 human episodes
    python -m envs.collect env=so101 noise=0.05 pixels=96 wrist=true                # with pictures of two cameras
    python -m envs.collect -m pixels=96 task=box-close-v3,door-open-v3              # several tasks, with pictures
"""

import logging
from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import DictConfig

from envs.registry import make
from envs.replay_buffer import ReplayBuffer

log = logging.getLogger("envs.collect")


def collect_adroit(config: DictConfig) -> ReplayBuffer:
    """Record the published expert of ``config.task``, which is in the archive at ``config.source``.

    Raises:
        ValueError: ``config.source`` is not set, or the expert is not in it.
    """
    from envs.dapg_expert import DapgExpert

    task = config.task.removeprefix("adroit-")
    if config.source is None:
        raise ValueError(
            "source: say where the experts are: an npz with the arrays of the policies that the repository "
            f"aravindr93/hand_dapg publishes (Apache-2.0), named {', '.join(DapgExpert.names(task))}: "
            f"python -m envs.collect env=adroit task={config.task} source=adroit_experts.npz"
        )
    return record(config, expert=DapgExpert.load(config.source, task))


def record(config: DictConfig, **kwargs: Any) -> ReplayBuffer:
    """Record the expert of ``config.task``. `kwargs` are further arguments of the environment."""
    from envs.expert import record_expert

    options = {key: value for key, value in config.env.items() if key not in ("name", "task", "realtime")}
    env = make(config.env.name, task=config.task, pixels=config.pixels, wrist=config.wrist, **options, **kwargs)
    buffer, attempts = record_expert(
        env, config.episodes, first_seed=config.first_seed, noise=config.noise, draw_every=config.draw_every
    )
    log.info("%s: kept %d of %d attempts", config.task, buffer.num_episodes, attempts)
    return buffer


def collect_pusht(config: DictConfig) -> ReplayBuffer:
    """Convert the human demonstrations at ``config.source``.

    Raises:
        ValueError: ``config.source`` is not set.
    """
    from envs.pusht import load_human_demonstrations

    if config.source is None:
        raise ValueError(
            "source: say where Diffusion Policy's Push-T demonstrations are (they are in pusht.zip among its "
            "published training data): python -m envs.collect env=pusht source=pusht_cchi_v7_replay.zarr"
        )
    return load_human_demonstrations(config.source, pixels=config.pixels)


COLLECTORS: dict[str, Callable[[DictConfig], ReplayBuffer]] = {
    "adroit": collect_adroit,
    "metaworld": record,
    "pusht": collect_pusht,
    "so101": record,
}


@hydra.main(version_base=None, config_path="../configs", config_name="collect")
def main(config: DictConfig) -> None:
    """Collect the demonstrations, save them, and log their number."""
    try:
        buffer = COLLECTORS[config.env.name](config)
    except KeyboardInterrupt:
        log.error("stopped. Nothing was written; the command starts from the beginning.")
        raise SystemExit(130) from None
    buffer.save(config.output)
    log.info("%s: %d episodes, %d control steps", config.output, buffer.num_episodes, buffer.episode_ends[-1])


if __name__ == "__main__":
    main()
