"""What replay alone gives LeRobot's policies at real denoiser sizes: the untouched policy, and its bit-equal plan.

``python -m eval.experiments.lerobot.replayed 3 pi0 smolvla`` writes results/lerobot/replayed.md from 3 rounds.

Weights are random; all actions must be equal. The two are timed by turns. Multi-task DiT makes 10 of its 100 steps
here, because a recording takes as long as some twenty chunks; its share of Python in a step is the same.
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bac
from bac.files import write_text
from eval.experiments.lerobot.real_sizes import POLICIES, observation, set_num_steps
from eval.measure.latency import measure
from eval.setup.provenance import provenance

ROOT = Path(__file__).parents[3]
STEPS = 10
SETTLED = 6  # chunks until bac ignores the queues that a reset replaces; see `bac.plan`


def row(name: str, rounds: int) -> str:
    """Time one policy and return its line of the table.

    Raises:
        RuntimeError: A replayed action differs from the untouched policy's.
    """
    torch.manual_seed(0)
    untouched = POLICIES[name]().eval()
    set_num_steps(untouched, STEPS)
    weights = {id(weight): weight for weight in untouched.parameters()}
    replayed = copy.deepcopy(untouched, dict(weights))  # the weights are shared
    batch = observation(untouched)
    bac.wrap(replayed, replay=bac.Replay(record="first"))
    expected = acted(untouched, batch)
    if not all(torch.equal(acted(replayed, batch), expected) for _ in range(SETTLED)):
        raise RuntimeError(f"{name}: replayed actions differ from the untouched policy's")
    described = bac.describe(replayed)
    if not described.num_replays:
        raise RuntimeError(f"{name}: it was never replayed: {'; '.join(described.refusals)}")
    plan = described.plans[-1]
    calls = {kind: (lambda policy=policy: acted(policy, batch))
             for kind, policy in (("dense", untouched), ("replayed", replayed))}  # fmt: skip
    found = measure(calls, rounds=rounds)
    eager, quick = found["dense"], found["replayed"]
    operators = f"{plan.stages[0].num_operations:,} -> {plan.num_operations:,}"
    memory = sum(weight.numel() * weight.element_size() for weight in weights.values())
    cells = (f"`{name}`", f"{eager.p50_ms:.0f}", f"{quick.p50_ms:.0f}", f"{quick.speedup:.2f}", operators,
             f"{plan.num_bytes / 1e6:.1f}", f"{memory / 1e6:.0f}")  # fmt: skip
    return f"| {' | '.join(cells)} |"


def acted(policy: Any, batch: dict[str, Tensor]) -> Tensor:
    """All actions of one chunk from seeded noise, `[Ta, B, Da]`. The policy itself keeps what it saw before."""
    policy.reset()
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        return torch.stack([policy.select_action(dict(batch)) for _ in range(policy.config.n_action_steps)])


def table(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Yield the table's Markdown lines."""
    yield "| policy | untouched, p50 [ms] | replayed, p50 [ms] | x | operators | plan [MB] | weights [MB] |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name in names:
        yield row(name, rounds)


def main(rounds: int, names: Sequence[str]) -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    lines = list(table(names, rounds))
    made = provenance()
    head = (
        f"`{made['command']}`: random weights at real denoiser sizes, {STEPS} steps, float32, batch 1, one thread of "
        f"{made['device']}, other processes running; medians of {rounds} interleaved rounds, so read the ratios. "
        "All actions are equal, bit for bit."
    )
    write_text(ROOT / "results" / "lerobot" / "replayed.md", "\n".join([head, "", *lines]) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] or list(POLICIES))
