"""Latency of the shipped Push-T policy as LeRobot loads it: ``BAC=off``, nothing set, ``BAC=intercept``.

``python -m eval.experiments.lerobot.plugged_in 15`` writes results/lerobot/plugged_in.md from 15 rounds.

The policy is loaded by LeRobot's own factory, once for each value, from its folder as it is and from a copy in which
its four fitted steps lie as ``bac.json``. Chunks of one observation, on the same draws, are made by turns; actions must
be equal to those of ``BAC=off``, or to those intercepted where a ``bac.json`` is followed.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bac
import lerobot_policy_bac
from bac.files import write_text
from eval.measure.latency import Latency, measure
from eval.setup.provenance import provenance
from policies.diffusion_transformer import modeling_diffusion_transformer  # noqa: F401  (registers the policy's type)

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "policies" / "checkpoints" / "pusht"
TYPE = "diffusion_transformer"
WAYS = {"`BAC=off`": "off", "nothing set": "", "`BAC=intercept`": "intercept"}


def loaded(folder: Path, value: str) -> nn.Module:
    """Load a checkpoint as LeRobot's commands do, under a value of ``BAC``."""
    from lerobot.policies import factory

    lerobot_policy_bac.install()
    before = os.environ.get("BAC")
    os.environ["BAC"] = value
    try:
        policy = factory.get_policy_class(TYPE).from_pretrained(folder)
    finally:
        os.environ.pop("BAC")
        if before is not None:
            os.environ["BAC"] = before
    return policy.eval()


def observation(policy: Any) -> dict[str, Tensor]:
    """One random observation, as the policy's preprocessor would hand it over."""
    generator, window = torch.Generator().manual_seed(0), (1, policy.config.n_obs_steps)
    features = policy.config.input_features
    return {name: torch.rand(*window, *feature.shape, generator=generator) for name, feature in features.items()}


def cells(folder: Path) -> dict[str, Callable[[], Tensor]]:
    """Chunks of one observation on the same draws, one way each; the plan is made here.

    Raises:
        RuntimeError: Actions differ where they must not.
    """

    def predict(policy: Any) -> Tensor:
        with torch.inference_mode():
            return policy.predict_action_chunk(dict(batch), generator=torch.Generator().manual_seed(0))

    policies = {name: loaded(folder, value) for name, value in WAYS.items()}
    batch = observation(policies["`BAC=off`"])
    calls = {name: (lambda policy=policy: predict(policy)) for name, policy in policies.items()}
    made = {name: call() for name, call in calls.items()}
    reference = "`BAC=intercept`" if (folder / "bac.json").exists() else "`BAC=off`"
    if not torch.equal(made["nothing set"], made[reference]):
        raise RuntimeError(f"{folder}: replayed actions differ from those under {reference}")
    if not bac.describe(policies["nothing set"]).plans:
        raise RuntimeError(f"{folder}: was not replayed: {bac.describe(policies['nothing set'])}")
    return calls


def table(dense: Mapping[str, Latency], followed: Mapping[str, Latency]) -> Iterator[str]:
    """Yield the table's Markdown lines: times over ``BAC=off``, then medians."""
    yield "| x over `BAC=off` (p50 [ms]) | without `bac.json`, 100 steps | `fitted_4.json` as `bac.json`, 4 steps |"
    yield "|---|---:|---:|"
    for name in dense:
        both = (dense[name], followed[name])
        yield f"| {name} | " + " | ".join(f"{one.speedup:.2f} ({one.p50_ms:.1f})" for one in both) + " |"


def main(rounds: int) -> None:
    """Measure both folders and write the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(shutil.copytree(SHIPPED, Path(scratch) / "pusht"))
        shutil.copy(SHIPPED / "fitted_4.json", copied / "bac.json")
        measured = [measure(cells(folder), rounds=rounds) for folder in (SHIPPED, copied)]
    made = provenance()
    clock = measured[0]["`BAC=off`"].clock
    about = (
        f"`{made['command']}`: the shipped Push-T policy, float32, batch 1, one thread of {made['device']}, other "
        f"processes running; medians of {rounds} interleaved rounds, {clock} clock. Without `bac.json` all actions are "
        "equal; with it, those replayed are those intercepted."
    )
    lines = [about, "", *table(*measured), ""]
    write_text(ROOT / "results" / "lerobot" / "plugged_in.md", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
