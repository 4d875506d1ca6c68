"""The ways to make an action chunk of one policy, for interleaved timing.

The policy is DP-T with seeded random weights. The ways are eager with diffusers' step, compiled by PyTorch, dense
replayed, cached by interceptors, cached and replayed, and fewer steps.
"""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import bac
import bac.plan
from eval.experiments.latency.ddpm import precomputed_step
from eval.experiments.latency.random_policy import RandomPolicy, Setting, observations
from eval.measure.flops import policy_flops

logger = logging.getLogger(__name__)

EXACT, FAST = bac.Replay(record="ahead"), bac.Replay(exact=False, record="ahead")
INDUCTOR = bac.Replay(exact=False, compile=True, record="ahead")
_COMPILED = ("compiled", "inductor")  # in the names of ways that need a compiler


@dataclass(frozen=True)
class Way:
    """One way to make an action chunk.

    Attributes:
        call: Makes one action chunk.
        flops_ratio: FLOP of the dense run over FLOP of this way.
        num_reused: Number of reuses in a run, summed over blocks.
        plan: The plan that it replays; None if it is not replayed.
    """

    call: Callable[[], Tensor]
    flops_ratio: float
    num_reused: int = 0
    plan: bac.plan.Plan | None = None


class WayMaker:
    """Makes ways of one setting. Every way has a policy of its own, so none disturbs another's plans.

    Attributes:
        schedule: BAC's schedule.
        uniform: Schedule that updates all blocks together at evenly spaced steps, `num_updates` times.
        once: Schedule that updates every block at the first step only.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.batch = observations(setting, setting.batch_size, seed=1)
        self.policy = RandomPolicy(setting)
        single = copy.deepcopy(self.policy).float()
        batch = {name: value.float() for name, value in observations(setting, 2, seed=2).items()}
        calibration = bac.calibrate(single, [batch], num_draws=1, progress=False)
        updates, bubbled = setting.num_updates, setting.num_bubbled
        self.schedule = bac.adaptive_schedule(calibration, num_updates=updates, num_bubbled=bubbled)
        even = range(0, setting.num_steps, setting.num_steps // updates)[:updates]
        self.uniform = bac.Schedule(setting.num_steps, dict.fromkeys(calibration.block_names, tuple(even)))
        self.once = bac.Schedule(setting.num_steps, dict.fromkeys(calibration.block_names, (0,)))
        self.dense_flops = policy_flops(self.policy, None, setting.num_steps)

    def eager(self, solver: str = "DDPM", num_steps: int | None = None) -> Way:
        """The unwrapped policy."""
        return self._way(self._copy(solver, num_steps), num_steps=num_steps)

    def intercepted(self, schedule: bac.Schedule) -> Way:
        """The policy with a cache, through interceptors alone."""
        policy = bac.wrap(self._copy(), schedule, replay=False, strict=False)
        return self._way(policy, schedule)

    def replayed(
        self,
        schedule: bac.Schedule | None = None,
        *,
        replay: bac.Replay = EXACT,
        solver: str = "DDPM",
        num_steps: int | None = None,
    ) -> Way:
        """The policy from a plan, cached or dense. Not strict, since the schedule may come from another dtype."""
        policy = bac.wrap(self._copy(solver, num_steps), schedule, replay=replay, strict=False)
        return self._way(policy, schedule, num_steps=num_steps, plan=bac.plan.record(policy, self.batch))

    def precomputed(self) -> Way:
        """The dense policy, eager, with the solver's coefficients precomputed."""
        policy = self._copy()
        policy.diffusion.noise_scheduler.step = precomputed_step(policy.diffusion.noise_scheduler)
        return self._way(policy)

    def compiled(self, mode: str) -> Way:
        """The dense policy with its denoiser compiled by PyTorch; diffusers' loop stays eager."""
        policy = self._copy()
        policy.diffusion.transformer.compile(mode=mode, dynamic=False)
        return self._way(policy)

    def without_blocks(self, num_steps: int, *, embedded: bool) -> Way:
        """The last `num_steps` steps without any block: the solver alone, on a prediction of zero.

        Args:
            num_steps: Number of steps.
            embedded: Also evaluate the denoiser's embedding, last norm and head, as a reused step in exact mode does.
        """
        setting, sampler = self.setting, self.policy.diffusion
        denoiser, scheduler = sampler.transformer, sampler.noise_scheduler
        step, timesteps = precomputed_step(scheduler), scheduler.timesteps[-num_steps:].tolist()
        start = torch.zeros(setting.batch_size, setting.horizon, setting.action_size, device=setting.device)
        start = start.to(denoiser.pos_emb.dtype)
        embed, norm, head = denoiser.input_emb, denoiser.ln_f, denoiser.head

        def call() -> Tensor:
            sample = prediction = start
            for t in timesteps:
                if embedded:
                    tokens = F.linear(sample, embed.weight, embed.bias) + denoiser.pos_emb
                    tokens = F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias)
                    prediction = F.linear(tokens, head.weight, head.bias)
                sample = step(prediction, t, sample).prev_sample
            return sample

        return Way(call, float("inf"))

    def _copy(self, solver: str = "DDPM", num_steps: int | None = None) -> RandomPolicy:
        policy = copy.deepcopy(self.policy)
        policy.diffusion.use_solver(solver, num_steps or self.setting.num_steps)
        return policy

    def _way(
        self,
        policy: RandomPolicy,
        schedule: bac.Schedule | None = None,
        *,
        num_steps: int | None = None,
        plan: bac.plan.Plan | None = None,
    ) -> Way:
        flops = policy_flops(self.policy, schedule, num_steps or self.setting.num_steps)
        reused = 0 if schedule is None else schedule.num_steps * len(schedule.update_steps) - schedule.num_updates_total
        return Way(partial(policy.predict_action_chunk, self.batch), self.dense_flops / flops, reused, plan)


Makers = dict[str, Callable[[], Way]]


def quick_ways(maker: WayMaker) -> Makers:
    """The ways of ``preset=quick``."""
    return {
        "dense_eager": maker.eager,
        "dense_replay": maker.replayed,
        "interpret": partial(maker.intercepted, maker.schedule),
        "replay_exact": partial(maker.replayed, maker.schedule),
        "replay_fast": partial(maker.replayed, maker.schedule, replay=FAST),
        "uniform10_replay_fast": partial(maker.replayed, maker.uniform, replay=FAST),
    }


def all_ways(maker: WayMaker, *, compiler_modes: tuple[str, ...] = (), inductor: bool = False) -> Makers:
    """Quick ways and rivals: PyTorch's compiler, fewer steps."""
    ways = quick_ways(maker)
    ways["dense_precomputed"] = maker.precomputed
    ways["uniform10_replay_exact"] = partial(maker.replayed, maker.uniform)
    for steps in (16, 10):
        ways[f"ddim{steps}_eager"] = partial(maker.eager, "DDIM", steps)
        ways[f"ddim{steps}_replay"] = partial(maker.replayed, solver="DDIM", num_steps=steps)
    for name, replay in (("exact", EXACT), ("fast", FAST)):
        ways[f"once_replay_{name}"] = partial(maker.replayed, maker.once, replay=replay)
        ways[f"ddim1_replay_{name}"] = partial(maker.replayed, replay=replay, solver="DDIM", num_steps=1)
    ways["reused_steps_solver"] = partial(maker.without_blocks, maker.setting.num_steps - 1, embedded=False)
    ways["reused_steps_no_block"] = partial(maker.without_blocks, maker.setting.num_steps - 1, embedded=True)
    ways["ddim10_replay_fast"] = partial(maker.replayed, replay=FAST, solver="DDIM", num_steps=10)
    ways |= {f"dense_compiled_{mode}": partial(maker.compiled, mode) for mode in compiler_modes}
    if inductor:
        ways["replay_inductor"] = partial(maker.replayed, maker.schedule, replay=INDUCTOR)
    return ways


def compiled_ways(maker: WayMaker) -> Makers:
    """The ways of ``preset=compiled``: the quick ones, and each kind of run re-associated and compiled."""
    four = {"solver": "DDIM", "num_steps": 4}
    runs: dict[str, dict[str, Any]] = {"dense": {}, "bac": {"schedule": maker.schedule}, "ddim4": four}
    ways = quick_ways(maker)
    for name, run in runs.items():
        if name != "bac":  # a quick way
            ways[f"{name}_replay_fast"] = partial(maker.replayed, replay=FAST, **run)
        ways[f"{name}_compiled"] = partial(maker.replayed, replay=INDUCTOR, **run)
    return ways


def made(makers: Makers) -> dict[str, Way]:
    """Make every way and its first chunk, and say so at once. A compiled way that fails is logged and left out."""
    ways = {}
    for name, make in makers.items():
        begin = time.perf_counter()
        try:
            way = make()
            way.call()
        except RuntimeError as error:
            if not any(word in name for word in _COMPILED):
                raise
            logger.warning("%s does not run here: %s", name, str(error).splitlines()[0])
            continue
        logger.info("%-24s made, with its first chunk, in %.1f s", name, time.perf_counter() - begin)
        ways[name] = way
    return ways
