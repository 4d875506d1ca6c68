"""Flow-matching samplers that step through a noise scheduler of diffusers, under whatever name they hold it.

Such a loop asks the scheduler for its times, hands them to the denoiser as the share of noise times
``num_train_timesteps``, and lets `step` advance the sample by the velocity, noise - clean. Guidance happens before
`step`, so the velocity that is solved with is the guided one. For a run, `FlowSteps` stands in for the scheduler.
"""

from __future__ import annotations

import copy
import logging
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bac.adapters.flow import Flow, Stage, Stepper
from bac.adapters.host import dotted_name
from bac.errors import RunError, ScheduleError

logger = logging.getLogger(__name__)
EULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete.FlowMatchEulerDiscreteScheduler"
_OTHERS = {
    f"diffusers.schedulers.scheduling_{name}_multistep.{cls}MultistepScheduler"
    for name, cls in (("dpmsolver", "DPMSolver"), ("unipc", "UniPC"), ("deis", "DEIS"))
}
_REFUSED = (
    ("invert_sigmas", "True", "its times rise"),
    ("stochastic_sampling", "True", "it draws noise at every step"),
    ("algorithm_type", "sde", "it draws noise at every step"),
)  # options of a scheduler, the beginnings of their values, and what that means


def is_flow(scheduler: Any) -> bool:
    """Whether a noise scheduler integrates a flow: diffusers' for flow matching, or one set to predict a velocity."""
    ancestry = set(map(dotted_name, type(scheduler).__mro__))
    return EULER in ancestry or (
        not _OTHERS.isdisjoint(ancestry) and scheduler.config.get("prediction_type") == "flow_prediction"
    )


def why_not(scheduler: Any) -> str:
    """The reason why no other solver can stand in for a flow's scheduler; empty if one can, or it is no flow's."""
    options = scheduler.config if is_flow(scheduler) else {}
    found = (
        (why, name, options.get(name)) for name, begin, why in _REFUSED if str(options.get(name)).startswith(begin)
    )
    return next((f"{why}, with {name}={value}" for why, name, value in found), "")


def depends_on_the_call(scheduler: Any) -> bool:
    """Whether a scheduler has no times before a call, because the size of a picture decides them."""
    return bool(scheduler.config.get("use_dynamic_shifting"))


def flow_through(owner: Any, attribute: str, *, by_call: bool = False) -> Flow | None:
    """Describe a sampler that steps through a noise scheduler; None if no other solver can stand in for it.

    Args:
        owner: Object that holds the scheduler and reads it anew in every run.
        attribute: Its name there.
        by_call: Whether the scheduler's own times may be others in every call.
    """
    own = getattr(owner, attribute)
    if not is_flow(own) or why_not(own):
        return None
    times = _last_times if by_call or depends_on_the_call(own) else _own_times
    return Flow(steppers=(Stepper(owner, attribute, partial(FlowSteps, own)),), grid=partial(times, own))


def _own_times(scheduler: Any, num_steps: int) -> tuple[float, ...]:
    """The shares of noise at which a scheduler steps, `[K + 1]`. The scheduler is left unchanged."""
    _require_euler(scheduler)
    mine = copy.deepcopy(scheduler)
    mine.set_timesteps(num_steps)
    return tuple(map(float, mine.sigmas))


def _last_times(scheduler: Any, num_steps: int) -> tuple[float, ...]:
    """The shares of noise of the last run, `[K + 1]`."""
    _require_euler(scheduler)
    sigmas = tuple(map(float, scheduler.sigmas))
    if len(sigmas) != num_steps + 1:
        raise ScheduleError(
            f"own times: they depend on the call, and the last one did not make {num_steps} steps; make one that does "
            f"before the fit: pipe(..., num_inference_steps={num_steps})"
        )
    return sigmas


def _require_euler(scheduler: Any) -> None:
    if EULER not in map(dotted_name, type(scheduler).__mro__):
        raise ScheduleError(
            f"own times: only Euler's steps can be fitted to, got {type(scheduler).__name__}; fit to a fine run of "
            "the flow: FlowFitter(host, run)"
        )


class FlowSteps:
    """Stands in for a flow's scheduler: the times are the stage's, and so is the step. The rest is the own one's.

    Args:
        own: The scheduler.
        stage: The solver's run.

    Attributes:
        timesteps: Times as the denoiser is told them, `[K]`.
        sigmas: Shares of noise, `[K + 1]`; the last is 0.
    """

    order = 1  # evaluations of the denoiser in a step

    def __init__(self, own: Any, stage: Stage) -> None:
        self._own, self._stage = own, stage
        self.set_timesteps()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for while it is copied, before it holds the own one
            raise AttributeError(name)
        return getattr(self._own, name)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,  # diffusers' pipelines look for these two names
        timesteps: Any = None,
        **_: Any,
    ) -> None:
        """Begin a run. Whatever times a loop asks for, it gets the stage's."""
        times = self._stage.times
        if num_inference_steps not in (None, len(times)):
            logger.info("%d denoising steps asked for; the solver makes its %d", num_inference_steps, len(times))
        self.sigmas = torch.tensor((*times, 0.0), device=device)
        self.timesteps = self.sigmas[:-1] * int(self._own.config.num_train_timesteps)
        self.num_inference_steps = len(self.timesteps)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Accept only a run from the first step on.

        Raises:
            RunError: It begins later, as from a picture that is noised in part.
        """
        if begin_index:
            raise RunError(f"a run of a few-step solver starts from pure noise, got one that starts at {begin_index}")

    def scale_noise(self, *_: Any, **__: Any) -> Tensor:
        """Refuse to noise a picture.

        Raises:
            RunError: Always.
        """
        raise RunError(
            "a run of a few-step solver starts from pure noise, got a picture to begin with or to keep in part; take "
            "the solver off for that: bac.unwrap(pipe)"
        )

    add_noise = scale_noise

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *_: Any,
        per_token_timesteps: Tensor | None = None,
        return_dict: bool = True,
        **__: Any,
    ) -> Any:
        """The stage's step from the guided velocity, rounded once to the sample's dtype.

        Raises:
            RunError: Every token has a time of its own.
        """
        if per_token_timesteps is not None:
            raise RunError("per_token_timesteps: a few-step solver has one time for all tokens, got one for each")
        after = self._stage.advance(sample, model_output).to(sample.dtype)
        return SimpleNamespace(prev_sample=after) if return_dict else (after,)
