"""LeRobot's `diffusion`, the convolutional U-Net: cached like any other, and put to a solver fitted to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from tests.contracts import AdapterContract
from tests.lerobot import models

pytestmark = pytest.mark.slow


def observed(batch_size: int) -> dict[str, Tensor]:
    """Where the robot is and, from the other end, where the block is, `[B, To, 3]` each."""
    state = models.observation(batch_size, steps=2, image=False)["observation.state"]
    return {"observation.state": state, "observation.environment_state": state.flip(-1)}


class TestDDPM(AdapterContract):
    num_steps = 7
    blocks_per_layer = 1
    options: dict[str, Any] = {"num_inference_steps": 7}

    def make_policy(self) -> nn.Module:
        return models.diffusion(**self.options)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return observed(batch_size)

    def chunk(self, policy: nn.Module, batch: Any) -> Tensor:
        return find_host(policy).predict(batch)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.diffusion.num_inference_steps = num_steps


class TestDDIM(TestDDPM):
    options = {"num_inference_steps": 7, "noise_scheduler_type": "DDIM", "use_film_scale_modulation": True}


class TestSmallDiffusion(TestDDPM):
    def make_policy(self) -> nn.Module:
        return models.small_diffusion(**self.options)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return models.observation(batch_size, steps=1)


def test_blocks_are_in_order_of_evaluation():
    names = [block.name for block in find_host(models.diffusion()).blocks]
    assert names[:2] == ["down_modules.0.0.conv2", "down_modules.0.1.conv2"]
    assert names[4:6] == ["mid_modules.0.conv2", "mid_modules.1.conv2"] and names[-1] == "up_modules.0.1.conv2"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
def test_a_compiled_u_net_is_refused_with_what_to_type_instead():
    policy = models.diffusion()
    policy.diffusion.unet = torch.compile(policy.diffusion.unet)
    with pytest.raises(bac.BacError, match="compile_model=False"):
        find_host(policy)


def test_few_fitted_steps_are_among_what_it_is_tuned_to():
    policy = models.diffusion(noise_scheduler_type="DDIM", num_inference_steps=20)
    batches = [observed(4), observed(5)]
    options = {"evaluations": 0, "sweeps": (3,), "rounds": 2, "replay": False, "progress": False}
    tuned = bac.tune(policy, batches, target_latency_s=30.0, **options)
    trials = {trial.name: trial for trial in tuned.trials}
    fitted = trials["fewer steps, fitted multistep, 3 steps"]
    assert fitted.typical_error < trials["fewer steps, DPM-Solver++ 1, 3 steps"].typical_error
    bac.wrap(policy, fitted.denoising, replay=False)
    with models.evaluations(policy.diffusion.unet) as timesteps:
        find_host(policy).predict(batches[0])
    assert timesteps == list(fitted.denoising.timesteps) and len(timesteps) == 3
    assert policy.diffusion.num_inference_steps == 20
