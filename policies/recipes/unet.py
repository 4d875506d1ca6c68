"""LeRobot's Diffusion Policy, a U-Net, small, from pictures and states, by DDPM."""

from collections.abc import Mapping
from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from policies.demonstrations import Demonstrations
from policies.loading import set_steps
from policies.recipes.pictures import newest, picture_features, require_pictures_and_words, varied
from policies.recipes.where import ANSWER, Where
from policies.small_diffusion.configuration_small_diffusion import SmallDiffusionConfig
from policies.small_diffusion.modeling_small_diffusion import SmallDiffusionPolicy
from policies.small_diffusion.processor_small_diffusion import make_small_diffusion_pre_post_processors

MEASURING_STEPS = 10
SIZES = """LeRobot's Diffusion Policy (Chi et al., RSS 2023), a U-Net, small, from a random start: {parameters}
parameters, U-Net {down_dims}, a ResNet {vision_widths} for each camera, horizon {horizon}, {n_action_steps} actions
executed per chunk. It sees the pictures of {cameras} and the arm's own state; it is not told the task."""


class UNetRecipe:
    """See `policies.recipes.Recipe`. The last chunk of an episode is shorter; the loss leaves out what pads it.

    Raises:
        ValueError: The demonstrations have no pictures or no instruction, or have several, or the working weights are
            not float32.
    """

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations) -> None:
        require_pictures_and_words(cfg, demonstrations, "the U-Net", "env=so101 pixels=96 wrist=true")
        told = sorted(set(demonstrations.instructions))
        if len(told) > 1:
            raise ValueError(f"{cfg.data}: the U-Net is not told what to do, and these are {len(told)} tasks: {told}")
        self._cfg = cfg
        features = demonstrations.features()
        self.config = SmallDiffusionConfig(
            **OmegaConf.to_container(cfg.policy),
            input_features={OBS_STATE: features[OBS_STATE], **picture_features(demonstrations)},
            output_features={ACTION: features[ACTION]},
            device=cfg.device,
            push_to_hub=False,
        )
        seen = 2 * self.config.spatial_softmax_num_keypoints * len(self.config.image_features)
        self._where = Where(demonstrations, seen) if cfg.where else None
        self.extra = {ANSWER: self._where.answers} if self._where else {}
        self.drop_n_last = self.config.drop_n_last_frames
        self.measured_with = f"DDIM-{MEASURING_STEPS}"

    def processors(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any]:
        """See `Recipe`."""
        return make_small_diffusion_pre_post_processors(self.config, dict(stats))

    def build(self) -> SmallDiffusionPolicy:
        """See `Recipe`."""
        return SmallDiffusionPolicy(self.config)

    def loss(self, policy: SmallDiffusionPolicy, batch: dict[str, Tensor]) -> Tensor:
        """See `Recipe`. Pictures are varied first."""
        seen, cfg = varied(newest(batch), self._cfg.shift), self._cfg
        return denoising_loss(policy, seen, cfg.draws, where=self._where, weight=cfg.where)

    def predict(self, policy: SmallDiffusionPolicy, batch: dict[str, Tensor], seed: int) -> Tensor:
        """See `Recipe`. The solver is DDIM with `MEASURING_STEPS`, which needs no noise but the first."""
        set_steps(policy, MEASURING_STEPS, "DDIM")
        shape = (len(batch[ACTION]), self.config.horizon, self.config.action_feature.shape[0])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.config.device)
        return policy.predict_action_chunk(newest(batch), noise=noise)

    def card(self) -> dict[str, str]:
        """See `Recipe`."""
        return {"title": "Diffusion Policy (U-Net)", "tags": "diffusion", "sizes": SIZES}


def encode(policy: SmallDiffusionPolicy, batch: dict[str, Tensor]) -> Tensor:
    """What the U-Net is told of a batch of lone observations: states, then what is seen, `[B, width]`."""
    pictures = torch.stack([batch[key] for key in policy.config.image_features], dim=1)
    seen = {OBS_STATE: batch[OBS_STATE].unsqueeze(1), OBS_IMAGES: pictures.unsqueeze(1)}
    return policy.diffusion._prepare_global_conditioning(seen)


def denoising_loss(
    policy: SmallDiffusionPolicy,
    batch: dict[str, Tensor],
    draws: int,
    *,
    where: Where | None = None,
    weight: float = 1.0,
    noise: Tensor | None = None,
    timesteps: Tensor | None = None,
) -> Tensor:
    """LeRobot's loss of Diffusion Policy, with several draws of noise and timestep for every observation.

    Pictures are most of the work, and are encoded once. With one draw it is the loss of the policy's own `forward`.

    Args:
        policy: The policy in training.
        batch: One observation and one chunk of actions for each row, normalised, with ``action_is_pad``.
        draws: Draws for each row.
        where: Also asks what is seen where things are; ``batch["observation.answer"]`` has the answers.
        weight: Weight of that loss.
        noise: The draws' noise, `[draws * B, T, Da]`; None draws it.
        timesteps: The draws' timesteps, `[draws * B]`, of the training's; None draws them.
    """
    model, config = policy.diffusion, policy.config
    encoded = encode(policy, batch)
    actions = batch[ACTION].repeat(draws, 1, 1)
    noise = torch.randn_like(actions) if noise is None else noise
    if timesteps is None:
        timesteps = torch.randint(config.num_train_timesteps, (len(actions),), device=actions.device)
    noisy = model.noise_scheduler.add_noise(actions, noise, timesteps)
    predicted = model.unet(noisy, timesteps, global_cond=encoded.repeat(draws, 1))
    wanted = noise if config.prediction_type == "epsilon" else actions
    inside = ~batch[f"{ACTION}_is_pad"].repeat(draws, 1)
    loss = (predicted - wanted)[inside].square().mean()
    if where is None:
        return loss
    return loss + weight * where.loss(encoded[:, batch[OBS_STATE].shape[1] :], batch[ANSWER])
