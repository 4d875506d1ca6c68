"""What every estimator costs at a reused block, intercepted and replayed.

``python -m eval.experiments.methods.estimator_cost`` writes ``results/methods/cost.json``. The policy is as good as nothing: small linear
maps added to a stream, so that what is left is overhead. Every row runs for few and for many denoising steps with the
same updates; the difference of its medians, over the blocks reused in between, is the cost of one reused block. A row
whose blocks return a constant pays for the loop and the residual sum alone and is subtracted.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import bac
import bac.plan
from bac.caching.estimators import (
    AdamsBashforth,
    AffineResidual,
    Estimator,
    FittedForecast,
    Hold,
    Increment,
    Newton,
    PreviousChunk,
    Rescale,
    Residual,
    ScaleShift,
    Taylor,
)
from bac.recording import record_features
from eval.measure.latency import Latency, measure
from eval.setup.provenance import provenance
from eval.play.records import write_json

NUM_BLOCKS = 12
TOKENS, CHANNELS = 16, 64
UPDATES = (0, 1, 2, 3)
FEW, MANY = 8, 48
WAYS = ("interpret", "replay", "replay_fast")
RANK = 8
PLAIN = (Taylor(1), Taylor(2), Taylor(3), Newton(2), AdamsBashforth(1), AdamsBashforth(2), Rescale(), Residual())
FITTED = (ScaleShift, AffineResidual, FittedForecast)
CONSTANT = "constant"


class Stream(nn.Module):
    """`num_steps` sweeps of small linear maps over a stream, `[B, 16, 64]`."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_steps = num_steps
        self.maps = nn.ModuleList(nn.Linear(CHANNELS, CHANNELS) for _ in range(NUM_BLOCKS))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=1e-3)  # or a stream of so many maps would overflow
        self.eval()

    def reset(self) -> None:
        """Nothing to forget."""

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        """The stream after all sweeps."""
        x = batch["stream"]
        for _ in range(self.num_steps):
            for one in self.maps:
                x = x + one(x)
        return x

    def blocks(self) -> list[bac.Block]:
        """Its maps."""
        return [bac.Block(f"maps.{i}", bac.BlockKind.FEED_FORWARD, i, one) for i, one in enumerate(self.maps)]

    def schedule(self) -> bac.Schedule:
        """All update together at the first steps."""
        return bac.Schedule(self.num_steps, {f"maps.{i}": UPDATES for i in range(NUM_BLOCKS)})


class Constant(nn.Module):
    """Returns the same tensor, whatever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.full((1, TOKENS, CHANNELS), 0.01))

    def forward(self, x: Tensor) -> Any:
        """The tensor."""
        return self.value


@dataclass(frozen=True)
class Cost:
    """One estimator at one reused block.

    Attributes:
        estimator: Its name.
        executor: ``interpret``, ``replay`` (exact) or ``replay_fast`` (``exact=False``: sums are formed once).
        reuse_us: What a reused block costs beyond the host's own residual sum [us].
        over_hold_us: The same beyond plain reuse [us].
        operations: Operators of the plan for each reused block beyond the host's sum; None where there is no plan.
    """

    estimator: str
    executor: str
    reuse_us: float
    over_hold_us: float
    operations: float | None


def batch() -> dict[str, Tensor]:
    """One input."""
    return {"stream": torch.randn(1, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(1))}


def estimators(num_steps: int, way: str) -> list[Estimator]:
    """All of them, the fitted ones fitted; those that look back a chunk are never replayed."""
    policy = Stream(num_steps)
    features = [record_features(policy, batch(), blocks=policy.blocks())]
    found: list[Estimator] = [Hold(), *PLAIN, *(kind.fit(policy.schedule(), features) for kind in FITTED)]
    small = {"down": np.full((1, CHANNELS, RANK), 1e-6), "up": np.full((1, RANK, CHANNELS), 1e-6)}
    found.append(Increment(dict.fromkeys(policy.schedule().block_names, small)))
    return [*found, PreviousChunk()] if way == "interpret" else found


def wrapped(num_steps: int, way: str, estimator: Estimator | None) -> Stream:
    """A policy to be timed: one whose blocks are constant if there is no estimator."""
    policy, options = Stream(num_steps), {"executor": way.split("_")[0], "exact": way != "replay_fast"}
    if estimator is not None:
        return bac.wrap(policy, policy.schedule(), blocks=policy.blocks(), estimator=estimator, **options)
    policy.maps = nn.ModuleList(Constant() for _ in range(NUM_BLOCKS))
    return policy if way == "interpret" else bac.wrap(policy, None, blocks=policy.blocks(), **options)


def cells() -> dict[str, Stream]:
    """Every row at few and at many steps, by ``way|estimator|steps``."""
    made = {}
    for way in WAYS:
        for num_steps in (FEW, MANY):
            made[f"{way}|{CONSTANT}|{num_steps}"] = wrapped(num_steps, way, None)
            for estimator in estimators(num_steps, way):
                made[f"{way}|{estimator.name}|{num_steps}"] = wrapped(num_steps, way, estimator)
    return made


def operations(cells: Mapping[str, Stream]) -> dict[str, int]:
    """Operators of every row's plan."""
    return {
        title: bac.plan.plans(policy)[-1].num_operations
        for title, policy in cells.items()
        if not title.startswith("interpret")
    }


def slopes(values: Mapping[str, float]) -> dict[str, float]:
    """By ``way|estimator``, how much a value grows with every block of a further step."""
    rows = {title.rpartition("|")[0] for title in values}
    return {row: (values[f"{row}|{MANY}"] - values[f"{row}|{FEW}"]) / (NUM_BLOCKS * (MANY - FEW)) for row in rows}


def costs(measured: Mapping[str, Latency], counted: Mapping[str, int]) -> list[Cost]:
    """Slopes over the number of steps, less the constant row's."""
    times = slopes({title: 1e3 * latency.p50_ms for title, latency in measured.items()})
    counts = slopes(counted)
    rows = []
    for title in dict.fromkeys(title.rpartition("|")[0] for title in measured):
        way, _, name = title.partition("|")
        constant = f"{way}|{CONSTANT}"
        if title != constant:
            own, over = times[title] - times[constant], times[title] - times[f"{way}|hold"]
            more = round(counts[title] - counts[constant], 2) if title in counts else None
            rows.append(Cost(name, way, round(own, 2), round(over, 2), more))
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What every estimator costs at a reused block.")
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--output", type=Path, default=Path("results/methods/cost.json"))
    options = parser.parse_args()
    policies, given = cells(), batch()
    calls = {title: partial(policy.predict_action_chunk, given) for title, policy in policies.items()}
    measured = measure(calls, rounds=options.rounds, warmup=4)
    rows = costs(measured, operations(policies))
    for row in rows:
        times = f"{row.reuse_us:7.2f} us {row.over_hold_us:7.2f} us over hold"
        print(f"{row.executor:12} {row.estimator:18} {times} {row.operations} operations")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    setting = {
        "blocks": NUM_BLOCKS,
        "shape": [1, TOKENS, CHANNELS],
        "dtype": "float32",
        "threads": 1,
        "num_steps": [FEW, MANY],
        "update_steps": UPDATES,
        "rounds": options.rounds,
        "clock": next(iter(measured.values())).clock,
    }
    samples = {title: latency.to_dict() for title, latency in measured.items()}
    write_json(
        options.output,
        {"costs": [asdict(row) for row in rows], "setting": setting, "samples": samples, "made": provenance()},
    )


if __name__ == "__main__":
    main()
