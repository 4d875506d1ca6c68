"""LeRobot's real-time chunking around a solver of ours.

Its processor guides a denoiser's velocity towards what is left of the last chunk. For that it takes ``x - time v`` for
the clean chunk, which holds for the denoiser's own velocity at the time that the denoiser was told. So guidance comes
first and the solver second: the stand-in calls the processor with the true time, lets the denoiser answer with its own
velocity, and makes the effective velocity from the guided one.

The processor bounds its weight by ``max_guidance_weight``, 10 by default: the inverse of one of ten even steps, so that
no step overshoots. A step of another width has its own such bound, 10 at a width of 0.1.

That bound, and so the guidance, is made for Euler's step. Fitted coefficients were fitted to unguided runs; on guided
velocities they can lead anywhere. So what was committed takes Euler's step, at the solver's times, and the rest of the
chunk the solver's, blended as the processor blends its guidance.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from bac.errors import RunError
from bac.solvers.flow import FlowRun

_WIDTH = 0.1  # of the steps that LeRobot's default of the largest weight is for


class Guidance:
    """Stands in for a processor of real-time chunking for the time of one call of the sampler.

    Args:
        processor: The policy's own, which is left as it is.
        run: The solver's run.
    """

    def __init__(self, processor: Any, run: FlowRun) -> None:
        self._processor, self._run = processor, run

    def denoise_step(
        self, x_t: Tensor, prev_chunk_left_over: Any, inference_delay: Any, time: Any,
        original_denoise_step_partial: Any, execution_horizon: Any = None,
    ) -> Tensor:  # fmt: skip
        """See LeRobot's ``RTCProcessor.denoise_step``. `time` is the loop's and is replaced by the solver's.

        Raises:
            RunError: The solver makes one step, which guidance would make in one leap.
        """
        run = self._run
        if len(run.rows) == 1:
            raise RunError(
                "real-time chunking needs more than one denoising step: guidance corrects a step by the next. Give the "
                "policy a solver of 3 steps: bac.tune(policy, batches), or bac.Denoising(solver, (0.8, 0.2, 0.05))"
            )
        step = run.step
        with run.unanswered():
            guided = self._bounded(run.widths[step]).denoise_step(
                x_t=x_t,
                prev_chunk_left_over=prev_chunk_left_over,
                inference_delay=inference_delay,
                time=run.noise[step],
                original_denoise_step_partial=original_denoise_step_partial,
                execution_horizon=execution_horizon,
            )
        # The processor counts as pi0 does: its velocity is noise - action, whatever the policy's is.
        committed = self._committed(x_t, prev_chunk_left_over, inference_delay, execution_horizon)
        return run.sign * run.velocity(x_t, run.sign * guided, committed)

    def _committed(self, sample: Tensor, left_over: Any, delay: Any, horizon: Any) -> Tensor | None:
        """How much each action is guided, from 1 (committed) to 0, `[T, 1]`, by the processor's rule; None if not."""
        if left_over is None:
            return None
        horizon = self._processor.rtc_config.execution_horizon if horizon is None else horizon
        weights: Tensor = self._processor.get_prefix_weights(delay, min(horizon, left_over.shape[-2]), sample.shape[-2])
        return weights[:, None]

    def _bounded(self, width: float) -> Any:
        """The processor with the largest weight for a step of this width."""
        mine = copy.copy(self._processor)
        config = mine.rtc_config
        mine.rtc_config = replace(config, max_guidance_weight=config.max_guidance_weight * _WIDTH / width)
        return mine

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # before __init__, as when it is copied
            raise AttributeError(name)
        return getattr(self._processor, name)
