"""The cost of every estimator at a reused block, intercepted and replayed.

``python -m eval.experiments.methods.estimator_cost`` writes ``results/methods/cost.json``. The policy only adds small
linear maps to a stream, so nearly all its time is overhead. Every estimator runs for few and for many denoising steps
with the same updates. The difference of the two medians, divided by the number of additional reuses, is the cost of one
reused block. From it the cost of a stream whose blocks return a constant is subtracted: the loop and the residual sum.
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
from bac.caching.estimators import Estimator, Hold, Residual, Taylor
from bac.published import (
    AdamsBashforth,
    AffineResidual,
    FittedForecast,
    Increment,
    Newton,
    PreviousChunk,
    Rescale,
    ScaleShift,
)
from bac.recording import record_features
from eval.measure.latency import Latency, measure
from eval.setup.files import write_json
from eval.setup.provenance import provenance

NUM_BLOCKS = 12
TOKENS, CHANNELS = 16, 64
UPDATES = (0, 1, 2, 3)
FEW, MANY = 8, 48
EXECUTORS = {
    "interpret": False,
    "replay": bac.Replay(record="first"),
    "replay_fast": bac.Replay(exact=False, record="first"),
}
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
        """Do nothing: this policy has no state."""

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        """The stream after all sweeps."""
        x = batch["stream"]
        for _ in range(self.num_steps):
            for one in self.maps:
                x = x + one(x)
        return x

    def blocks(self) -> list[bac.Block]:
        """The blocks of this stream: its maps."""
        return [bac.Block(f"maps.{i}", "feed_forward", i, one) for i, one in enumerate(self.maps)]

    def schedule(self) -> bac.Schedule:
        """The schedule that updates all blocks at the first steps, `UPDATES`, only."""
        return bac.Schedule(self.num_steps, {f"maps.{i}": UPDATES for i in range(NUM_BLOCKS)})


class Constant(nn.Module):
    """A block that returns the same tensor for every input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.full((1, TOKENS, CHANNELS), 0.01))

    def forward(self, x: Tensor) -> Any:
        """Return the constant tensor, `[1, 16, 64]`."""
        return self.value


@dataclass(frozen=True)
class Cost:
    """Cost of one estimator at one reused block.

    Attributes:
        estimator: Name of the estimator.
        executor: ``interpret``, ``replay`` (exact) or ``replay_fast`` (``exact=False``: sums are formed once).
        reuse_us: Cost of a reused block beyond the host's own residual sum [us].
        over_hold_us: Cost of a reused block beyond that of plain reuse [us].
        operations: Operators of the plan per reused block beyond the host's sum; None without a plan.
    """

    estimator: str
    executor: str
    reuse_us: float
    over_hold_us: float
    operations: float | None


def batch() -> dict[str, Tensor]:
    """A random input, `[1, 16, 64]`."""
    return {"stream": torch.randn(1, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(1))}


def estimators(num_steps: int, executor: str) -> list[Estimator]:
    """All estimators, fitted where needed. `PreviousChunk` is only intercepted, because it is never replayed."""
    policy = Stream(num_steps)
    features = [record_features(policy, batch(), blocks=policy.blocks())]
    found: list[Estimator] = [Hold(), *PLAIN, *(kind.fit(policy.schedule(), features) for kind in FITTED)]
    small = {"down": np.full((1, CHANNELS, RANK), 1e-6), "up": np.full((1, RANK, CHANNELS), 1e-6)}
    found.append(Increment(dict.fromkeys(policy.schedule().block_names, small)))
    return [*found, PreviousChunk()] if executor == "interpret" else found


def wrapped(num_steps: int, executor: str, estimator: Estimator | None) -> Stream:
    """A policy to time. Without an estimator, its blocks are constant."""
    policy, replay = Stream(num_steps), EXECUTORS[executor]
    if estimator is not None:
        denoising = bac.Denoising(schedule=policy.schedule(), estimator=estimator)
        return bac.wrap(policy, denoising, blocks=policy.blocks(), replay=replay)
    policy.maps = nn.ModuleList(Constant() for _ in range(NUM_BLOCKS))
    return bac.wrap(policy, blocks=policy.blocks(), replay=replay) if replay else policy


def streams() -> dict[str, Stream]:
    """Every policy to time, by ``executor|estimator|steps``."""
    made = {}
    for executor in EXECUTORS:
        for num_steps in (FEW, MANY):
            made[f"{executor}|{CONSTANT}|{num_steps}"] = wrapped(num_steps, executor, None)
            for estimator in estimators(num_steps, executor):
                made[f"{executor}|{estimator.name}|{num_steps}"] = wrapped(num_steps, executor, estimator)
    return made


def operations(policies: Mapping[str, Stream]) -> dict[str, int]:
    """Number of operators of every plan."""
    return {
        title: bac.plan.plans(policy)[-1].num_operations
        for title, policy in policies.items()
        if not title.startswith("interpret")
    }


def slopes(values: Mapping[str, float]) -> dict[str, float]:
    """Growth of a value per block of an additional step, by ``executor|estimator``."""
    pairs = {title.rpartition("|")[0] for title in values}
    return {pair: (values[f"{pair}|{MANY}"] - values[f"{pair}|{FEW}"]) / (NUM_BLOCKS * (MANY - FEW)) for pair in pairs}


def costs(measured: Mapping[str, Latency], counted: Mapping[str, int]) -> list[Cost]:
    """The cost of every estimator: its slope over the number of steps, less the constant stream's."""
    times = slopes({title: 1e3 * latency.p50_ms for title, latency in measured.items()})
    counts = slopes(counted)
    found = []
    for pair in dict.fromkeys(title.rpartition("|")[0] for title in measured):
        executor, _, name = pair.partition("|")
        constant = f"{executor}|{CONSTANT}"
        if pair != constant:
            own, over = times[pair] - times[constant], times[pair] - times[f"{executor}|hold"]
            more = round(counts[pair] - counts[constant], 2) if pair in counts else None
            found.append(Cost(name, executor, round(own, 2), round(over, 2), more))
    return found


def document_of(found: list[Cost], measured: Mapping[str, Latency], rounds: int) -> dict[str, Any]:
    """Costs, settings and samples, as plain JSON types."""
    setting = {
        "blocks": NUM_BLOCKS,
        "shape": [1, TOKENS, CHANNELS],
        "dtype": "float32",
        "threads": 1,
        "num_steps": [FEW, MANY],
        "update_steps": UPDATES,
        "rounds": rounds,
        "clock": next(iter(measured.values())).clock,
    }
    samples = {title: latency.to_dict() for title, latency in measured.items()}
    return {"costs": [asdict(cost) for cost in found], "setting": setting, "samples": samples, "made": provenance()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="What every estimator costs at a reused block.")
    parser.add_argument("--rounds", type=int, default=101, help="samples of each")
    parser.add_argument("--output", type=Path, default=Path("results/methods/cost.json"), help="a JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    policies, given = streams(), batch()
    calls = {title: partial(policy.predict_action_chunk, given) for title, policy in policies.items()}
    measured = measure(calls, rounds=options.rounds, warmup=4)
    found = costs(measured, operations(policies))
    for cost in found:
        times = f"{cost.reuse_us:7.2f} us {cost.over_hold_us:7.2f} us over hold"
        print(f"{cost.executor:12} {cost.estimator:18} {times} {cost.operations} operations")
    write_json(options.output, document_of(found, measured, options.rounds))


if __name__ == "__main__":
    main()
