"""diffusers' UniPC with the call that all noise schedulers of this policy share."""

from diffusers import UniPCMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Generator, Tensor


class DeterministicUniPCScheduler(UniPCMultistepScheduler):
    """UniPC (Zhao et al., 2023) whose step accepts a generator like the others, and does not use it."""

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, generator: Generator | None = None
    ) -> SchedulerOutput:
        """Make one step. `generator` is not used."""
        return super().step(model_output, timestep, sample)
