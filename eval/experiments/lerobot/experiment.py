"""Latency of LeRobot's own policies, dense and cached.

The weights are random and the denoisers have real sizes (`eval.experiments.lerobot.real_sizes`), so latencies are valid
and quality is not measured. One sample is one call of the policy's sampler at batch 1. All rows are interleaved in one
process:

- ``dense``: the unwrapped policy.
- ``hoisted``: every block is computed; all that depends only on the observation is computed once per chunk.
- ``dense replayed``: the dense run from a plan.
- ``BAC 50 %``, ``BAC 30 %``: that share of block evaluations is computed, hoisted; the same again replayed.
- ``5 of 10 steps`` and so on: the rival, the unwrapped policy with the same share of its denoising steps.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn

import bac
from bac.adapters import find_host
from bac.recording import watching
from eval.experiments.lerobot.real_sizes import NUM_STEPS, POLICIES, observation, set_num_steps
from eval.measure.latency import Latency

SHARES = (0.5, 0.3)
FAST = bac.Replay(exact=False, record="first")


@dataclass(frozen=True)
class SpeedRow:
    """One way to make a chunk.

    Attributes:
        call: Makes one action chunk.
        share: Share of the dense run's block evaluations that are computed.
        operators: ATen operators that a replay dispatches, without views; None if nothing is replayed.
    """

    call: Callable[[], Any]
    share: float = 1.0
    operators: int | None = None


class RowMaker:
    """Makes rows of one policy. Every row has its own copy of the policy; all copies share the weights.

    Args:
        name: One of `POLICIES`.
        device: Device of the policy.
        num_steps: Denoising steps K of the dense run; None for the policy's own.
    """

    def __init__(self, name: str, device: str = "cpu", num_steps: int | None = None) -> None:
        self.name = name
        self.num_steps = num_steps or NUM_STEPS[name]
        torch.manual_seed(0)
        self.policy = POLICIES[name]().eval().to(device)
        set_num_steps(self.policy, self.num_steps)
        for parameter in self.policy.parameters():
            if not parameter.detach().any():  # modulation starts at zero, which would switch its blocks off
                nn.init.normal_(parameter, std=0.02)
        self.batch = observation(self.policy)
        with watching(self.policy) as watch, torch.no_grad():
            for _ in range(2):
                self._act(self.policy)
        self.calibration = watch.calibration()

    @property
    def num_parameters(self) -> int:
        """Number of the policy's parameters."""
        return sum(parameter.numel() for parameter in self.policy.parameters())

    @property
    def everywhere(self) -> bac.Schedule:
        """The schedule that computes every block at every step."""
        steps = tuple(range(self.num_steps))
        return bac.Schedule(self.num_steps, dict.fromkeys(self.calibration.block_names, steps))

    def schedule(self, share: float) -> bac.Schedule:
        """BAC's schedule with n = 2 and the most updates per block within `share` of all block evaluations.

        Raises:
            ValueError: One update per block is already more than `share`.
        """
        for num_updates in range(self.num_steps, 0, -1):
            schedule = bac.adaptive_schedule(self.calibration, num_updates=num_updates, num_bubbled=2)
            if share_of(schedule) <= share:
                return schedule
        raise ValueError(f"share: one update per block is more than {share:.0%} of {self.num_steps} steps")

    def dense(self) -> SpeedRow:
        """The unwrapped policy."""
        return SpeedRow(self._sampler_call(self.copy()))

    def fewer(self, num_steps: int) -> SpeedRow:
        """The unwrapped policy with fewer denoising steps."""
        policy = self.copy()
        set_num_steps(policy, num_steps)
        return SpeedRow(self._sampler_call(policy), num_steps / self.num_steps)

    def cached(self, schedule: bac.Schedule) -> SpeedRow:
        """The policy with a cache, through interceptors; all that the observation fixes is computed once per chunk."""
        policy = self.copy()
        call = self._sampler_call(policy)
        bac.wrap(policy, schedule, replay=False, strict=False)
        return SpeedRow(call, share_of(schedule))

    def replayed(self, schedule: bac.Schedule | None = None) -> SpeedRow:
        """The policy replayed from a plan, which is recorded here.

        Raises:
            RuntimeError: `bac` cannot record a plan.
        """
        policy = self.copy()
        call = self._sampler_call(policy)
        bac.wrap(policy, schedule, replay=FAST, strict=False)
        with torch.inference_mode():
            call()
        found = bac.describe(policy)
        if not found.plans:
            raise RuntimeError(f"{self.name} cannot be replayed: {'; '.join(found.refusals)}")
        share = 1.0 if schedule is None else share_of(schedule)
        return SpeedRow(call, share, found.plans[-1].num_operations)

    def copy(self) -> nn.Module:
        """A copy of the policy that shares its weights."""
        memory = {id(parameter): parameter for parameter in self.policy.parameters()}
        return copy.deepcopy(self.policy, memory)

    def _act(self, policy: nn.Module) -> None:
        policy.reset()
        policy.select_action(dict(self.batch))

    def _sampler_call(self, policy: nn.Module) -> Callable[[], Any]:
        """Make a call for one denoising run, with the arguments that the unwrapped policy gives its sampler."""
        host = find_host(policy)
        owner, name = host.sampler_owner, host.sampler_attribute
        with mock.patch.object(owner, name, wraps=getattr(owner, name)) as sampler, torch.inference_mode():
            self._act(policy)
        args, options = sampler.call_args
        return lambda: getattr(owner, name)(*args, **options)  # looked up at every call, since `wrap` comes later


def share_of(schedule: bac.Schedule) -> float:
    """Share of all block evaluations that a schedule computes."""
    return schedule.num_updates_total / (schedule.num_steps * len(schedule.update_steps))


def speed_rows(maker: RowMaker) -> dict[str, SpeedRow]:
    """Every row, by name."""
    rows = {"dense": maker.dense(), "hoisted": maker.cached(maker.everywhere), "dense replayed": maker.replayed()}
    for share in SHARES:
        schedule, few = maker.schedule(share), max(1, round(share * maker.num_steps))
        rows[f"BAC {share:.0%}"] = maker.cached(schedule)
        rows[f"BAC {share:.0%} replayed"] = maker.replayed(schedule)
        rows[f"{few} of {maker.num_steps} steps"] = maker.fewer(few)
    return rows


def table(rows: Mapping[str, SpeedRow], latencies: Mapping[str, Latency]) -> Iterator[str]:
    """Yield the table's Markdown lines."""
    yield "| | p50 [ms] | p95 [ms] | x dense | evaluations | operators |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, latency in latencies.items():
        operators = "" if rows[name].operators is None else f"{rows[name].operators:,}"
        yield (
            f"| {name} | {latency.p50_ms:.0f} | {latency.p95_ms:.0f} | {latency.speedup:.2f} | "
            f"{rows[name].share:.0%} | {operators} |"
        )
