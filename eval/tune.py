"""`bac.tune` on a shipped policy: ``python -m eval.tune policy=pusht tune.target_hz=25``.

The policy itself visits the observations, in worlds that no evaluated episode uses. ``solver=`` configures it, and
that is the reference: DDPM-100 unless it says otherwise. Afterwards the chosen Denoising is timed a second time, in a
process of its own and by the wall clock, because a budget that is met once may have been met by luck. A policy that is
told its task in words visits all its tasks.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

import bac
from bac.files import probe, write_text
from bac.plan.replay import replay_named
from bac.tuning import Budget, Tuned
from bac.tuning.batches import in_parts
from eval.compared.many_tasks import ManyTasks
from eval.measure.fresh import fresh_latency
from eval.play.visit import visited
from eval.setup.batches import Batch, one_of
from eval.setup.cells import Cell, configure
from eval.setup.config import CONFIGS, cell_of, log_to_terminal, settings_of
from eval.setup.files import write_json
from eval.setup.noise import paired_chunk
from eval.setup.provenance import provenance
from eval.setup.settings import CALIBRATION_SEED, Settings

logger = logging.getLogger(__name__)
BATCH = 8
ASKED = ("target_latency_s", "target_hz", "max_action_error", "control_hz", "n_action_steps")
REPORT_NAME = "bac.tuned.json"  # as `bac tune` calls it


def ready(settings: Settings, cell: Cell, denoising: bac.Denoising, batch: Batch) -> Callable[[], Any]:
    """Load the policy, put the Denoising on it, and return the call that makes one action chunk.

    Args:
        settings: Policy and world.
        cell: The policy's configuration.
        denoising: The Denoising to put on.
        batch: One observation, `[1, To, D]` each.
    """
    policy = settings.load_policy().policy
    configure(policy, cell)
    bac.wrap(policy, denoising)
    return partial(paired_chunk, policy, batch, [torch.Generator().manual_seed(0)])


def seen(settings: Settings, cell: Cell, count: int, tasks: Sequence[str] | None, pixels: int) -> tuple[Any, Batch]:
    """The policy, and `count` observations that it visits by itself, of all `tasks` if it has several."""
    if tasks:
        many = ManyTasks(settings, tasks, pixels)
        return many.loaded, many.observations(CALIBRATION_SEED, count, cell)
    loaded = settings.load_policy()
    return loaded, visited(loaded, settings.make_env, CALIBRATION_SEED, count, cell=cell, progress=True)


def publish(folder: Path, tuned: Tuned, again: Mapping[str, float]) -> None:
    """Write the report, the picture, the provenance, and the chosen Denoising as ``bac.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    tuned.save(folder / REPORT_NAME)
    write_text(folder / "tuned.txt", f"{tuned}\n\nrun again: {json.dumps(dict(again))}\n")
    tuned.plot(folder / "front.png")
    tuned.denoising.save(folder / "bac.json")
    write_json(folder / "provenance.json", {**provenance(), "second_run": dict(again)})


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Visit observations, tune, time the choice again in a fresh process, and write the results."""
    log_to_terminal(stopped="stopped. Nothing was written; the command starts from the beginning.")
    torch.set_num_threads(1)
    options: dict[str, Any] = OmegaConf.to_container(config.tune, resolve=True)
    folder, count, rounds = Path(options.pop("results")), options.pop("num_observations"), options.pop("rounds")
    options["replay"] = replay_named(options.pop("executor"))
    asked = {name: options[name] for name in ASKED}
    if any(value is not None for value in asked.values()):
        Budget.of(**asked, margin=options["margin"])  # refuses what makes no sense before minutes of work
    folder.mkdir(parents=True, exist_ok=True)
    probe(folder / "bac.json")  # before minutes of work
    tasks, cell = config.get("tasks"), cell_of(config).sampler
    settings = settings_of(config, of_many_tasks=bool(tasks))
    loaded, batch = seen(settings, cell, count, tasks, config.vla.pixels)
    configure(loaded.policy, cell)
    tuned = bac.tune(loaded.policy, in_parts(batch, min(BATCH, count // 2)), rounds=rounds, **options)
    print(tuned)
    make = partial(ready, settings, cell, tuned.denoising, one_of(batch))
    again = fresh_latency(make, rounds=5 * rounds)
    print(f"again: p50 {again['p50_ms']:.1f} ms, p95 {again['p95_ms']:.1f} ms; {tuned.budget}")
    publish(folder, tuned, again)


if __name__ == "__main__":
    main()
