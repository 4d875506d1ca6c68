"""A small Diffusion Policy: LeRobot's modules around a thin ResNet.

LeRobot's constructors build a ResNet of torchvision by name. So each class here has a constructor of its own, which
sets what the inherited methods read, and inherits everything else.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from lerobot.policies.diffusion.modeling_diffusion import (
    DiffusionConditionalUnet1d,
    DiffusionModel,
    DiffusionPolicy,
    DiffusionRgbEncoder,
    SpatialSoftmax,
    _make_noise_scheduler,
)
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.utils import get_output_shape
from lerobot.utils.constants import OBS_STATE
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from policies.noise import Generators, starting_noise
from policies.small_diffusion.configuration_small_diffusion import SmallDiffusionConfig


class SmallDiffusionPolicy(DiffusionPolicy):
    """Diffusion Policy (Chi et al., RSS 2023), a U-Net, with the widths of its configuration.

    Args:
        config: Options; `config.validate_features` is called first.
    """

    config_class = SmallDiffusionConfig
    name = "small_diffusion"

    def __init__(self, config: SmallDiffusionConfig, **kwargs: object) -> None:
        PreTrainedPolicy.__init__(self, config)  # not DiffusionPolicy's, which builds a large ResNet
        config.validate_features()
        self.config = config
        self.diffusion = SmallDiffusion(config)
        self.reset()

    def predict_action_chunk(
        self, batch: dict[str, Tensor], noise: Tensor | None = None, generator: Generators | None = None
    ) -> Tensor:
        """LeRobot's own, which wants an axis of time in states; a lone observation, `[B, ...]`, gets one here.

        Args:
            batch: Observations, with or without the axis of time.
            noise: Where the denoising run begins, `[B, T, Da]`; None draws it.
            generator: Draws this and the noise of every step: one, or one for each row. None is PyTorch's own.
        """
        if OBS_STATE in batch and batch[OBS_STATE].ndim == 2:
            batch = {**batch, OBS_STATE: batch[OBS_STATE].unsqueeze(1)}
        # LeRobot hands `noise` to the sampler as it is, and has no argument for a generator.
        return super().predict_action_chunk(batch, noise=noise if generator is None else Draws(noise, generator))


class SmallDiffusion(DiffusionModel):
    """A vision tower for each camera, the U-Net, and the noise scheduler."""

    def __init__(self, config: SmallDiffusionConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        width = config.robot_state_feature.shape[0]
        if config.env_state_feature:
            width += config.env_state_feature.shape[0]
        if config.image_features:
            count, apart = len(config.image_features), config.use_separate_rgb_encoder_per_camera
            towers = [SmallRgbEncoder(config) for _ in range(count if apart else 1)]
            self.rgb_encoder = nn.ModuleList(towers) if apart else towers[0]
            width += count * towers[0].feature_dim
        self.unet = DiffusionConditionalUnet1d(config, global_cond_dim=width * config.n_obs_steps)
        self.noise_scheduler = _make_noise_scheduler(
            config.noise_scheduler_type,
            num_train_timesteps=config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule=config.beta_schedule,
            clip_sample=config.clip_sample,
            clip_sample_range=config.clip_sample_range,
            prediction_type=config.prediction_type,
        )
        self.num_inference_steps = config.num_inference_steps or config.num_train_timesteps

    def conditional_sample(
        self,
        batch_size: int,
        global_cond: Tensor | None = None,
        generator: Generators | None = None,
        noise: "Tensor | Draws | None" = None,
    ) -> Tensor:
        """Make a denoising run: LeRobot's own, which may begin and step with the noise of `Draws`."""
        if isinstance(noise, Draws):
            generator, noise = noise.generator, noise.start
        if noise is None and generator is not None:
            noise = starting_noise(self.config, batch_size, next(self.parameters()), generator)
        return super().conditional_sample(batch_size, global_cond, generator, noise)


class Draws(NamedTuple):
    """All noise of a denoising run: where it begins, or None, and what draws the rest."""

    start: Tensor | None
    generator: Generators


class SmallRgbEncoder(DiffusionRgbEncoder):
    """A thin ResNet, keypoints by spatial softmax, and a linear layer."""

    def __init__(self, config: SmallDiffusionConfig) -> None:
        nn.Module.__init__(self)
        self.resize, self.do_crop = None, False
        picture = next(iter(config.image_features.values())).shape
        self.backbone = _thin_resnet(picture[0], config.vision_widths)
        with torch.no_grad():
            features = get_output_shape(self.backbone, (1, *picture))[1:]
        keypoints = config.spatial_softmax_num_keypoints
        self.pool = SpatialSoftmax(features, num_kp=keypoints)
        self.feature_dim = 2 * keypoints
        self.out = nn.Linear(2 * keypoints, self.feature_dim)
        self.relu = nn.ReLU()


def _thin_resnet(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """torchvision's residual units, one at each width, with the group norms that LeRobot puts in."""
    first = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
    units = [_unit(wide, out, 1 if i == len(widths) - 2 else 2) for i, (wide, out) in enumerate(pairwise(widths))]
    return nn.Sequential(first, _group_norm(widths[0]), nn.ReLU(), *units)


def _unit(channels: int, width: int, stride: int) -> BasicBlock:
    shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride, bias=False), _group_norm(width))
    return BasicBlock(channels, width, stride, shortcut, norm_layer=_group_norm)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 16), channels)
