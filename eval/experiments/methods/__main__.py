"""``python -m eval.experiments.methods preset=quick output=FILE.json`` writes a table with one row per method."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch

import envs
import policies
from bac.plan.replay import replay_named
from eval.experiments.methods.methods import rows_of
from eval.setup.config import CONFIGS, env_options, log_to_terminal
from eval.setup.files import write_json


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="methods")
def main(config: Any) -> None:
    """Measure a preset, print its table and write its rows."""
    log_to_terminal()
    torch.set_num_threads(1)
    env = dict(config.env)
    loaded = policies.load(policies.CHECKPOINTS.get(config.checkpoint, config.checkpoint))
    rows = rows_of(
        loaded,
        config.presets[config.preset],
        lambda: envs.make(env["name"], **env_options(env)),
        replay=replay_named(config.executor),
    )
    for row in sorted(rows, key=lambda row: (row.solver == "DDPM", row.sweeps, row.action_error)):
        name = f"{row.scheduler}, {row.estimator}, {row.solver}-{row.num_steps}"
        print(f"{name:48} {row.sweeps:6.1f} sweeps {row.latency_p50_ms:8.1f} ms {row.action_error:8.4f}")
    if config.output:
        write_json(Path(config.output), [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
