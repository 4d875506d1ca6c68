"""`bac.tune` on a shipped policy: ``python -m eval.tune policy=pusht tune.target_hz=25``.

The policy itself visits the observations, in worlds that no evaluated episode uses. Afterwards the chosen Denoising is
put on a fresh copy of the policy and timed a second time, because a budget that is met once may have been met by luck.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

import bac
from bac.files import probe, write_text
from bac.plan.replay import replay_named
from bac.tuning import Tuned
from bac.tuning.batches import in_parts
from eval.measure.latency import measure
from eval.play.visit import visited
from eval.setup.batches import Batch, one_of
from eval.setup.config import CONFIGS, log_to_terminal, settings_of
from eval.setup.files import write_json
from eval.setup.provenance import provenance
from eval.setup.settings import CALIBRATION_SEED

logger = logging.getLogger(__name__)
BATCH = 8
REPORT_NAME = "bac.tuned.json"  # as `bac tune` calls it
REFERENCE = ("DDIM", 100)


def second_run(policy: Any, tuned: Tuned, batch: Batch, *, rounds: int) -> dict[str, float]:
    """Time the chosen Denoising on a fresh policy.

    Args:
        policy: An unwrapped policy.
        tuned: The result of `bac.tune`.
        batch: One observation, `[1, To, D]` each.
        rounds: Number of chunks to time.

    Returns:
        ``p50_ms`` and ``p95_ms``.
    """
    bac.wrap(policy, tuned.denoising)
    generator = torch.Generator().manual_seed(0)
    calls = {"tuned": lambda: policy.predict_action_chunk(batch, generator=generator)}
    latency = measure(calls, rounds=rounds, warmup=3, progress=False)["tuned"]
    return {"p50_ms": latency.p50_ms, "p95_ms": latency.p95_ms}


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
    """Visit observations, tune, time the choice again, and write the results."""
    log_to_terminal()
    torch.set_num_threads(1)
    options: dict[str, Any] = OmegaConf.to_container(config.tune, resolve=True)
    folder, count, rounds = Path(options.pop("results")), options.pop("num_observations"), options.pop("rounds")
    options["replay"] = replay_named(options.pop("executor"))
    folder.mkdir(parents=True, exist_ok=True)
    probe(folder / "bac.json")  # before minutes of work
    settings = settings_of(config)
    loaded = settings.load_policy()
    batch = visited(loaded, settings.make_env, CALIBRATION_SEED, count)
    batches = in_parts(batch, min(BATCH, count // 2))
    loaded.policy.diffusion.use_solver(*REFERENCE)
    tuned = bac.tune(loaded.policy, batches, rounds=rounds, **options)
    print(tuned)
    fresh = settings.load_policy().policy
    fresh.diffusion.use_solver(*REFERENCE)
    again = second_run(fresh, tuned, one_of(batch), rounds=5 * rounds)
    print(f"again: p50 {again['p50_ms']:.1f} ms, p95 {again['p95_ms']:.1f} ms; {tuned.budget}")
    publish(folder, tuned, again)


if __name__ == "__main__":
    main()
