"""Policies whose drift is mental arithmetic, and guards of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import bac
from bac.caching.block import Site
from bac.caching.estimators import Estimator
from bac.guarding import Guard, calibrate
from tests.bac.models import TinyTransformerPolicy, obs, sweep

CALM, WILD = 0.25, 1.0


class Same(nn.Module):
    """Returns its input, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.weight.detach()


class RampPolicy(nn.Module):
    """Adds up what its block returns of 1, 1 + drift, 1 + 2 drift, 1 + 3 drift.

    Held from step 0, the block is off by ``s drift / (1 + s drift)`` at step s: at a drift of 1 by 1/2, 2/3, 3/4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.block, self.feeder = Same(), Same()
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        inputs = [1 + step * batch["drift"] for step in range(4)]
        return torch.stack([self.block(self.feeder(x)) for x in inputs], dim=1).sum(dim=1, keepdim=True)

    def blocks(self, *feeders: Site) -> list[bac.Block]:
        return [bac.Block("ramp", "feed_forward", 0, self.block, feeders=feeders)]


HELD = bac.Schedule(4, {"ramp": (0,)})
TWICE = bac.Schedule(4, {"ramp": (0, 2)})


def drift(*values: float) -> dict[str, Tensor]:
    return {"drift": torch.tensor(values)[:, None]}


def calibrated(policy: RampPolicy, schedule: bac.Schedule = HELD, **options) -> Guard:
    chosen = {"probe_every": 1, "num_cells": 3, "blocks": policy.blocks(), "progress": False, **options}
    return calibrate(policy, schedule, [drift(CALM, CALM / 2)] * 50, **chosen)


def guarded(**options) -> RampPolicy:
    """With a guard that looks at every cell of every chunk and cries when the evidence is ten."""
    policy = RampPolicy()
    guard = replace(calibrated(policy, patience=10, **options), action_range=None)
    return bac.wrap(policy, HELD, blocks=policy.blocks(), guard=guard, replay=False)


def predict(policy: nn.Module, *values: float) -> float:
    with torch.no_grad():
        return policy.predict_action_chunk(drift(*values)).item()


def transformer(
    estimator: Estimator | None = None, *, replay: bool | bac.Replay, **guard: Any
) -> TinyTransformerPolicy:
    """A policy that follows a schedule, with a guard if options of one are given."""
    torch.manual_seed(1)
    policy = TinyTransformerPolicy(num_steps=5)
    denoising = bac.Denoising(schedule=sweep(policy, (0, 3), 5), estimator=estimator)
    batches = [obs(4, seed) for seed in range(3)]
    watching = calibrate(policy, denoising, batches, progress=False, **guard) if guard else None
    return bac.wrap(policy, denoising, guard=watching, replay=replay)


def stream(policy: nn.Module, mode=torch.no_grad, chunks: int = 6) -> list[Tensor]:
    made = []
    for seed in range(chunks):
        torch.manual_seed(seed)
        with mode():
            made.append(policy.predict_action_chunk(obs(1, seed)).detach())
    return made
