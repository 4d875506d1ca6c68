"""A policy to time: DP-T of any size with seeded random weights. It avoids LeRobot, which takes seconds to import.

Denoiser, sampler and noise schedulers come from `policies.diffusion_transformer`. `bac` treats random weights like
trained ones, so latencies are valid; quality is not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policies.diffusion_transformer.sampler import ActionSampler
from policies.diffusion_transformer.solvers import UsualNoise
from policies.diffusion_transformer.transformer import TransformerForDiffusion

OBSERVATION_STEPS = 2


@dataclass(frozen=True)
class Setting:
    """Sizes, schedule, device and dtype of one timed policy.

    Attributes:
        layers: Decoder layers.
        width: Token width.
        heads: Attention heads.
        horizon: Actions per chunk T.
        action_size: Size of an action Da.
        observation_size: Size of an observation Do.
        num_steps: Denoising steps K of the dense run.
        num_updates: Updates per block before bubbling (the paper's S).
        num_bubbled: Blocks that bubble (the paper's n).
        batch_size: Batch size B.
        device: "cpu" or "cuda".
        dtype: Dtype of weights and observations.
    """

    layers: int = 8
    width: int = 256
    heads: int = 4
    horizon: int = 10
    action_size: int = 10
    observation_size: int = 137
    num_steps: int = 100
    num_updates: int = 10
    num_bubbled: int = 5
    batch_size: int = 1
    device: str = "cpu"
    dtype: str = "float32"


class RandomPolicy(nn.Module):
    """DP-T with weights N(0, 0.05^2) from seed 0, sampled with DDPM.

    Args:
        setting: Its sizes, device and dtype.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        torch.manual_seed(0)
        transformer = TransformerForDiffusion(
            setting.action_size,
            setting.action_size,
            setting.horizon,
            OBSERVATION_STEPS,
            setting.observation_size,
            n_layer=setting.layers,
            n_head=setting.heads,
            n_emb=setting.width,
        )
        self.diffusion = ActionSampler(transformer, UsualNoise())
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.05)
        self.diffusion.use_solver("DDPM", setting.num_steps)
        self.eval().to(setting.device, getattr(torch, setting.dtype))

    def reset(self) -> None:
        """Do nothing: this policy has no state."""

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        """Make one denoising run, from observations `[B, To, Do]` to the actions after the first, `[B, T - 1, Da]`."""
        cond = batch["observation.state"]
        return self.diffusion.conditional_sample(cond.shape[0], cond)[:, 1:]


def observations(setting: Setting, batch_size: int, seed: int) -> dict[str, Tensor]:
    """A random normalised observation batch, `[B, To, Do]`."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(batch_size, OBSERVATION_STEPS, setting.observation_size, generator=generator)
    return {"observation.state": state.to(setting.device, getattr(torch, setting.dtype))}
