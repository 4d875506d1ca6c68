"""Every way to make an action chunk of one policy, to be timed beside one another.

DP-T with seeded random weights: eager with diffusers' step, compiled by PyTorch, dense replayed, cached by
interceptors, cached and replayed, and fewer steps.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import bac
import bac.plan
from eval.measure.flops import policy_flops
from eval.experiments.latency.random_policy import RandomPolicy, Setting, observations

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One way to make an action chunk.

    Attributes:
        call: Makes one.
        flops_ratio: FLOP of the dense run over its own.
        num_reused: Block evaluations that are reused instead.
        plan: What it replays.
    """

    call: Callable[[], Tensor]
    flops_ratio: float
    num_reused: int = 0
    plan: bac.plan.Plan | None = None


class Bench:
    """Makes rows of one setting. Every row has a policy of its own, so none disturbs another's plans."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.policy = RandomPolicy(setting)
        self.batch = observations(setting, setting.batch_size, seed=1)
        batches = [observations(setting, 2, seed=2)]
        single = copy.deepcopy(self.policy).float()
        calibration = bac.calibrate(single, _as_float(batches), num_draws=1, progress=False)
        self.schedule = _without_fingerprint(
            bac.adaptive_schedule(calibration, num_updates=setting.num_updates, num_bubbled=setting.num_bubbled)
        )
        every = setting.num_steps // setting.num_updates
        steps = tuple(range(0, setting.num_steps, every))[: setting.num_updates]
        self.uniform = bac.Schedule(setting.num_steps, dict.fromkeys(calibration.block_names, steps))
        self.dense_flops = policy_flops(self.policy, None, setting.num_steps)

    def row(
        self,
        schedule: bac.Schedule | None,
        executor: str | None,
        *,
        exact: bool = True,
        compiler: bool = False,
        solver: str = "DDPM",
        num_steps: int | None = None,
    ) -> Row:
        """A row; ``executor=None`` is the untouched policy."""
        policy = copy.deepcopy(self.policy)
        steps = num_steps or self.setting.num_steps
        policy.diffusion.use_solver(solver, steps)
        plan = None
        if executor is not None:
            bac.wrap(policy, schedule, executor=executor, exact=exact, compile=compiler, strict=False)
            if executor == "replay":
                plan = bac.plan.record(policy, self.batch)
        ratio = self.dense_flops / policy_flops(self.policy, schedule, steps)
        reused = 0 if schedule is None else schedule.num_steps * len(schedule.update_steps) - schedule.num_updates_total
        return Row(self._call(policy), ratio, reused, plan)

    def precomputed_row(self) -> Row:
        """The dense policy, eager, with the solver's coefficients worked out beforehand."""
        policy = copy.deepcopy(self.policy)
        policy.diffusion.noise_scheduler.step = precomputed_step(policy.diffusion.noise_scheduler)
        return Row(self._call(policy), 1.0)

    def solver_row(self, num_steps: int, *, embedded: bool) -> Row:
        """What the last `num_steps` steps cost without any block: the solver, on a prediction of zero.

        Args:
            num_steps: How many.
            embedded: With the denoiser's embedding, last norm and head, which a reused step evaluates in exact mode.
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

        return Row(call, float("inf"))

    def compiled_row(self, mode: str) -> Row:
        """The dense policy with its denoiser compiled by PyTorch; diffusers' loop stays eager."""
        policy = copy.deepcopy(self.policy)
        policy.diffusion.transformer.compile(mode=mode, dynamic=False)
        return Row(self._call(policy), 1.0)

    def _call(self, policy: Any) -> Callable[[], Tensor]:
        def call() -> Tensor:
            chunk = policy.predict_action_chunk(self.batch)
            if self.setting.device == "cuda":
                torch.cuda.synchronize()
            return chunk

        return call


def quick_rows(bench: Bench) -> dict[str, Row]:
    """The rows of ``preset=quick``."""
    return {
        "dense_eager": bench.row(None, None),
        "dense_replay": bench.row(None, "replay"),
        "interpret": bench.row(bench.schedule, "interpret"),
        "replay_exact": bench.row(bench.schedule, "replay"),
        "replay_fast": bench.row(bench.schedule, "replay", exact=False),
        "uniform10_replay_fast": bench.row(bench.uniform, "replay", exact=False),
    }


def all_rows(bench: Bench, *, compiler_modes: tuple[str, ...] = (), inductor: bool = False) -> dict[str, Row]:
    """Quick rows, and rivals: PyTorch's compiler, fewer steps. What does not run here is left out, and logged."""
    rows = quick_rows(bench)
    rows["dense_precomputed"] = bench.precomputed_row()
    rows["uniform10_replay_exact"] = bench.row(bench.uniform, "replay")
    for steps in (16, 10):
        rows[f"ddim{steps}_eager"] = bench.row(None, None, solver="DDIM", num_steps=steps)
        rows[f"ddim{steps}_replay"] = bench.row(None, "replay", solver="DDIM", num_steps=steps)
    once = bac.Schedule(bench.setting.num_steps, dict.fromkeys(bench.uniform.block_names, (0,)))
    for exact, way in ((True, "exact"), (False, "fast")):
        rows[f"once_replay_{way}"] = bench.row(once, "replay", exact=exact)
        rows[f"ddim1_replay_{way}"] = bench.row(None, "replay", exact=exact, solver="DDIM", num_steps=1)
    rows["reused_steps_solver"] = bench.solver_row(bench.setting.num_steps - 1, embedded=False)
    rows["reused_steps_no_block"] = bench.solver_row(bench.setting.num_steps - 1, embedded=True)
    rows["ddim10_replay_fast"] = bench.row(None, "replay", exact=False, solver="DDIM", num_steps=10)
    makers: dict[str, Callable[[], Row]] = {
        f"dense_compiled_{mode}": lambda mode=mode: bench.compiled_row(mode) for mode in compiler_modes
    }
    if inductor:
        makers["replay_inductor"] = lambda: bench.row(bench.schedule, "replay", exact=False, compiler=True)
    for name, make in makers.items():
        try:
            row = make()
            row.call()
        except RuntimeError as error:
            logger.warning("%s does not run here: %s", name, str(error).splitlines()[0])
        else:
            rows[name] = row
    return rows


def precomputed_step(scheduler: Any) -> Callable[..., Any]:
    """DDPM's step for noise predictions (Ho et al., 2020, eq. 7), on numbers worked out beforehand.

    Args:
        scheduler: diffusers' DDPMScheduler with its timesteps set, fixed small variance, samples clipped to [-1, 1].
    """
    alphas = [float(scheduler.alphas_cumprod[t]) for t in scheduler.timesteps]
    table = {}
    for t, now, before in zip(scheduler.timesteps.tolist(), alphas, [*alphas[1:], 1.0], strict=True):
        alpha = now / before
        spread = sqrt(max((1 - before) / (1 - now) * (1 - alpha), 0.0))
        clean, noisy = sqrt(before) * (1 - alpha) / (1 - now), sqrt(alpha) * (1 - before) / (1 - now)
        table[t] = sqrt(1 - now), 1 / sqrt(now), clean, noisy, spread

    def step(prediction: Tensor, t: Tensor, sample: Tensor, generator: Any = None) -> Any:
        noise, inverse, clean, noisy, spread = table[int(t)]
        original = ((sample - noise * prediction) * inverse).clamp(-1, 1)
        previous = clean * original + noisy * sample
        if spread:
            previous = previous + spread * torch.randn(sample.shape, generator=generator, device=sample.device)
        return SimpleNamespace(prev_sample=previous)

    return step


def _as_float(batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: value.float() for name, value in batch.items()} for batch in batches]


def _without_fingerprint(schedule: bac.Schedule) -> bac.Schedule:
    return bac.Schedule(schedule.num_steps, dict(schedule.update_steps))
