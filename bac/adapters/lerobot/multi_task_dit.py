"""`multi_task_dit`: a diffusion transformer conditioned through adaLN alone; DDPM, DDIM, or flow with Euler or RK4."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from bac.adapters.diffusion_policy import noise_schedule
from bac.adapters.flow import Flow, place
from bac.adapters.host import Host
from bac.adapters.layers import FEED, SELF, blocks
from bac.adapters.lerobot.flow import rising
from bac.caching.block import Site
from bac.caching.interceptors.once import Hoist, SplitConditioning


def host(policy: Any) -> Host:
    """The sampler is the objective's. Blocks lie before the adaLN gates, which are computed fresh at each step."""
    denoiser, objective = policy.noise_predictor, policy.objective
    attention = "attn" if denoiser.use_rope else "multihead_attn"
    solver, timesteps = _solver(objective)
    step = place(denoiser, sample="x", time="timestep", answers=True)
    return Host(
        policy=policy,
        predict=lambda batch: _predict(policy, batch),
        reset=policy.reset,
        denoiser=denoiser,
        sampler_owner=objective,
        sampler_attribute="conditional_sample",
        blocks=blocks("transformer_blocks", denoiser.transformer_blocks, ((attention, SELF), ("mlp", FEED))),
        num_steps=len(timesteps),
        solver=solver,
        timesteps=timesteps,
        noise_scheduler=objective.noise_scheduler if objective.config.is_diffusion else None,
        takes_solvers=objective.config.is_diffusion,
        num_steps_at=(objective.config, "num_integration_steps") if solver == "Euler" else None,
        flow=Flow((step,), rising=True) if solver == "Euler" else None,
        why_no_solver=_FOUR if solver == "RK4" else "",
        weights=denoiser,
        hoists=tuple(_modulation(layer, denoiser.timestep_embed_dim) for layer in denoiser.transformer_blocks),
        uncovered="adaLN modulation; with exact=False only its share of the timestep",
    )


_FOUR = 'RK4 evaluates the denoiser four times a step, at times of its own; set integration_method="euler"'


def _modulation(layer: Any, num_time: int) -> Hoist:
    """The modulation, four fifths of the parameters, multiplies ``[timestep, observation]``; the latter is constant."""
    activation, linear = layer.adaLN_modulation
    return Hoist(
        Site(layer.adaLN_modulation),
        partial(SplitConditioning, activation=activation, linear=linear, num_time=num_time),
    )


def _solver(objective: nn.Module) -> tuple[str, tuple[float, ...]]:
    config: Any = objective.config
    if config.is_diffusion:
        steps: Any = objective.num_inference_steps
        return noise_schedule(objective.noise_scheduler, int(steps))
    steps = config.num_integration_steps
    if config.integration_method == "euler":
        return "Euler", rising(steps)
    # The four evaluations of a Runge-Kutta step lie at its beginning, twice in the middle, and at its end.
    return "RK4", tuple((step + part) / steps for step in range(steps) for part in (0.0, 0.5, 0.5, 1.0))


def _predict(policy: Any, batch: dict[str, Any]) -> Any:
    """Predict a chunk from whole observation windows, `[B, To, ...]`.

    The policy's own `predict_action_chunk` reads its queues instead, which only `select_action` fills.
    """
    return policy._generate_actions(policy._prepare_batch(dict(batch)))
