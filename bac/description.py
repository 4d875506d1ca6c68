"""Describes a policy: interceptors, plans and cost of a chunk if it is wrapped, the options if it is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from bac.adapters.host import Host
from bac.caching.interceptors.patch import Interceptor
from bac.caching.interceptors.scope import RunScope
from bac.caching.schedule import Schedule
from bac.denoising import Denoising
from bac.plan.executor import Replayer
from bac.plan.plan import Plan


@dataclass(frozen=True)
class Description:
    """The result of `bac.describe`. It prints as a report.

    Attributes:
        policy: Class name.
        denoiser: Class name.
        sampler: The method that the interceptors shadow: ``ActionSampler.conditional_sample``.
        num_blocks: Blocks that can be cached.
        own: The policy's own solver and number of steps, in words.
        stack: Interceptors on the sampler, outermost first: role and description.
        denoising: The policy's way to denoise; None if it is not wrapped.
        plans: Recorded runs, the last used at the end.
        num_replays: Chunks made by a plan.
        refusals: Reasons why runs are not replayed.
        options: Ways to make the policy faster, in words; empty if it is wrapped.
    """

    policy: str
    denoiser: str
    sampler: str
    num_blocks: int
    own: str
    stack: tuple[tuple[str, str], ...]
    denoising: Denoising | None
    plans: tuple[Plan, ...]
    num_replays: int
    refusals: tuple[str, ...]
    options: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.policy}: denoiser {self.denoiser}, {self.num_blocks} blocks, {self.own}"
        if self.denoising is None:
            yield "  not wrapped; options:"
            yield from (f"    {option}" for option in self.options)
            return
        yield f"  follows {self.denoising.name}"
        yield f"  on {self.sampler}, outermost first:"
        yield from (f"    {name:8} {words}" for name, words in (*self.stack, ("sampler", "the policy's own")))
        for plan in self.plans:
            cost = f"{plan.num_operations:,} operators, {1e3 * plan.replay_s:.2f} ms a chunk"
            cost += f", {plan.num_bytes / 1e6:.1f} MB"
            yield f"  plan for {plan.arguments}: {cost}"
        yield from (f"  not replayed: {reason}" for reason in self.refusals)
        if isinstance(self.denoising.schedule, Schedule):
            yield from (f"  {line}" for line in str(self.denoising.schedule).splitlines())


def describe_host(host: Host, stack: tuple[Interceptor, ...]) -> Description:
    """Describe a policy.

    Args:
        host: The policy.
        stack: Interceptors on its sampler, outermost first.
    """
    scopes = [found for found in stack if isinstance(found, RunScope)]
    replayers = [found for found in stack if isinstance(found, Replayer)]
    follows: Any = scopes[0].follows if scopes else None
    return Description(
        policy=type(host.policy).__name__,
        denoiser=type(host.denoiser).__name__,
        sampler=f"{type(host.sampler_owner).__name__}.{host.sampler_attribute}",
        num_blocks=len(host.blocks),
        own=f"{host.solver or 'unknown solver'}, {host.num_steps or 'unknown number of'} steps",
        stack=tuple((found.role, str(found)) for found in stack),
        denoising=follows,
        plans=replayers[0].plans if replayers else (),
        num_replays=replayers[0].num_replays if replayers else 0,
        refusals=replayers[0].refusals if replayers else (),
        options=() if scopes else tuple(_options(host)),
    )


def _options(host: Host) -> Iterator[str]:
    if isinstance(host.policy, nn.Module):
        yield "replay: bac.wrap(policy) makes the same actions, faster"
    if host.takes_solvers:
        yield "fewer steps of a fitted solver: bac.tune(policy, batches, target_hz=25)"
    if host.flow is not None:
        yield "fewer steps at chosen times: bac.wrap(policy, bac.Denoising(solver='Euler', timesteps=(0.8, 0.2, 0.05)))"
    elif host.takes_fewer_steps:
        yield "fewer of its own steps: bac.wrap(policy, bac.Denoising(num_steps=...))"
    yield f"reuse of {len(host.blocks)} blocks: bac.calibrate(policy, batches), then bac.adaptive_schedule"
    if host.uncovered:
        yield f"(computed at every step, whatever is reused: {host.uncovered})"
