"""DP-T as a LeRobot policy: one denoising run turns observations into an action chunk."""

from collections import deque

import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.utils import populate_queues
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES, OBS_STATE
from torch import Generator, Tensor, nn
from torch.distributions import Beta

from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig
from policies.diffusion_transformer.sampler import ActionSampler
from policies.diffusion_transformer.solvers import VELOCITY
from policies.diffusion_transformer.transformer import TransformerForDiffusion


class DiffusionTransformerPolicy(PreTrainedPolicy):
    """Diffusion Policy with a transformer denoiser (Chi et al., RSS 2023, arXiv 2303.04137).

    Args:
        config: Options; `config.validate_features` is called first.
    """

    config_class = DiffusionTransformerConfig
    name = "diffusion_transformer"

    def __init__(self, config: DiffusionTransformerConfig, **kwargs: object) -> None:
        super().__init__(config)
        config.validate_features()
        self.config = config
        self.diffusion = DiffusionTransformerModel(config)
        self.reset()

    def get_optim_params(self) -> list[dict[str, object]]:
        """Parameter groups: only the denoiser's weight matrices decay at the optimizer's rate."""
        groups = self.diffusion.transformer.optim_groups()
        encoders = list(self.diffusion.rgb_encoders.parameters())
        return [*groups, {"params": encoders, "weight_decay": 1e-6}] if encoders else groups

    def reset(self) -> None:
        """Empty the observation and action queues; call it at every reset of the environment."""
        self._queues = {
            OBS_STATE: deque(maxlen=self.config.n_obs_steps),
            ACTION: deque(maxlen=self.config.n_action_steps),
        }
        if self.config.env_state_feature:
            self._queues[OBS_ENV_STATE] = deque(maxlen=self.config.n_obs_steps)
        if self.config.image_features:
            self._queues[OBS_IMAGES] = deque(maxlen=self.config.n_obs_steps)

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        generator: Generator | list[Generator] | None = None,
    ) -> Tensor:
        """Predict the actions to execute next.

        If `select_action` has filled the queues, the observations come from the queues and `batch` only names their
        keys. If the queues are empty, the observations come from `batch`.

        Args:
            batch: Normalised observations, each `[B, To, ...]`.
            noise: Initial noise of the denoising run, `[B, T, Da]`; drawn if not given.
            generator: Generator of all random numbers, or one for each of the B rows; then the draws of a row do not
                depend on the other rows.

        Returns:
            Normalised actions, `[B, Ta, Da]`.
        """
        if any(self._queues.values()):
            batch = {key: torch.stack(list(self._queues[key]), dim=1) for key in batch if key in self._queues}
        else:
            batch = self._stack_cameras(batch)
        return self.diffusion.generate_actions(batch, noise, generator)

    @torch.no_grad()
    def select_action(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        generator: Generator | list[Generator] | None = None,
    ) -> Tensor:
        """Queue one observation and return one action; every Ta-th call predicts a new chunk.

        Args:
            batch: Normalised observations of one control step, each `[B, ...]`.
            noise: See `predict_action_chunk`.
            generator: See `predict_action_chunk`.

        Returns:
            Normalised action, `[B, Da]`.
        """
        batch = self._stack_cameras({key: value for key, value in batch.items() if key != ACTION})
        self._queues = populate_queues(self._queues, batch)
        if not self._queues[ACTION]:
            chunk = self.predict_action_chunk(batch, noise, generator)
            self._queues[ACTION].extend(chunk.transpose(0, 1))
        return self._queues[ACTION].popleft()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, None]:
        """Training loss of a batch of windows (see `DiffusionTransformerModel.compute_loss`)."""
        return self.diffusion.compute_loss(self._stack_cameras(batch)), None

    def _stack_cameras(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make a new batch with all cameras, if there are any, in one tensor `[..., cameras, C, H, W]`."""
        if not self.config.image_features:
            return dict(batch)
        images = torch.stack([batch[key] for key in self.config.image_features], dim=-4)
        return {**batch, OBS_IMAGES: images}


class DiffusionTransformerModel(ActionSampler):
    """The sampler with its observation encoders."""

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        rgb_encoders = _rgb_encoders(config)
        transformer = TransformerForDiffusion(
            input_dim=config.action_feature.shape[0],
            output_dim=config.action_feature.shape[0],
            horizon=config.horizon,
            n_obs_steps=config.n_obs_steps,
            cond_dim=_cond_dim(config, rgb_encoders),
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_emb=config.n_emb,
            p_drop_emb=config.p_drop_emb,
            p_drop_attn=config.p_drop_attn,
            causal_attn=config.causal_attn,
            n_cond_layers=config.n_cond_layers,
            norm_first=config.norm_first,
        )
        super().__init__(transformer, config)
        self.rgb_encoders = rgb_encoders
        steps = config.num_train_timesteps if config.num_inference_steps is None else config.num_inference_steps
        self.use_solver(config.noise_scheduler_type, steps, config.timestep_spacing)

    def encode_observations(self, batch: dict[str, Tensor]) -> Tensor:
        """Concatenate state, image features and environment state of each observation step.

        Args:
            batch: Normalised "observation.state" `[B, To, Ds]` and, where the configuration has them,
                "observation.images" `[B, To, cameras, C, H, W]` and "observation.environment_state" `[B, To, De]`.

        Returns:
            Encoded observations, `[B, To, Do]`.

        Raises:
            ValueError: The batch has another number of observation steps than the configuration.
        """
        state = batch[OBS_STATE]
        if state.ndim != 3 or state.shape[1] != self.config.n_obs_steps:
            raise ValueError(
                f"{OBS_STATE}: must be [batch, {self.config.n_obs_steps} observation steps, size], "
                f"got {list(state.shape)}"
            )
        features = [state]
        if self.rgb_encoders:
            features.append(self._encode_images(batch[OBS_IMAGES]))
        if self.config.env_state_feature:
            features.append(batch[OBS_ENV_STATE])
        return torch.cat(features, dim=-1)

    def _encode_images(self, images: Tensor) -> Tensor:
        """Encode images `[B, To, cameras, C, H, W]` to features `[B, To, cameras * features]`."""
        cameras = images.unbind(dim=2)
        encoders = list(self.rgb_encoders) if len(self.rgb_encoders) > 1 else [self.rgb_encoders[0]] * len(cameras)
        features = [
            encoder(camera.flatten(0, 1)).unflatten(0, camera.shape[:2])
            for encoder, camera in zip(encoders, cameras, strict=True)
        ]
        return torch.cat(features, dim=-1)

    def generate_actions(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        generator: Generator | list[Generator] | None = None,
    ) -> Tensor:
        """Sample a chunk and keep the actions to execute: Ta of T, from the current observation step on."""
        cond = self.encode_observations(batch)
        actions = self.conditional_sample(cond.shape[0], cond, noise, generator)
        start = self.config.n_obs_steps - 1
        return actions[:, start : start + self.config.n_action_steps]

    def compute_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean squared error of the prediction at a random noise level per row.

        Noise levels are even for diffusion (Ho et al., 2020), and more often high for flow matching (Black et al.,
        2024, pi0, appendix B).

        Args:
            batch: Observations as in `encode_observations`, "action" `[B, T, Da]` and "action_is_pad" `[B, T]`.

        Returns:
            Scalar, float32.
        """
        actions = batch[ACTION].float()
        noisy, timesteps, target = self._noised(actions, torch.randn_like(actions))
        cond = self.encode_observations(batch)
        prediction = self.transformer(noisy.to(cond.dtype), timesteps, cond).float()
        loss = F.mse_loss(prediction, target, reduction="none")
        if not self.config.do_mask_loss_for_padding:
            return loss.mean()
        inside = ~batch["action_is_pad"][..., None].expand_as(loss)
        return (loss * inside).sum() / inside.sum().clamp_min(1)

    def _noised(self, actions: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy actions, their timesteps, and what the denoiser should predict from them."""
        count, num_timesteps = actions.shape[0], self.noise_scheduler.config.num_train_timesteps
        if self.config.prediction_type == VELOCITY:
            share = 0.001 + 0.999 * Beta(1.5, 1.0).sample((count,)).to(actions.device)
            noisy = torch.lerp(actions, noise, share[:, None, None])
            return noisy, share * num_timesteps, noise - actions
        timesteps = torch.randint(0, num_timesteps, (count,), device=actions.device)
        target = noise if self.config.prediction_type == "epsilon" else actions
        return self.noise_scheduler.add_noise(actions, noise, timesteps), timesteps, target


def _rgb_encoders(config: DiffusionTransformerConfig) -> nn.ModuleList:
    """Make LeRobot's ResNets with spatial softmax, one for all cameras or one each; none without cameras."""
    if not config.image_features:
        return nn.ModuleList()
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionRgbEncoder  # imports torchvision

    count = len(config.image_features) if config.use_separate_rgb_encoder_per_camera else 1
    return nn.ModuleList(DiffusionRgbEncoder(config) for _ in range(count))


def _cond_dim(config: DiffusionTransformerConfig, rgb_encoders: nn.ModuleList) -> int:
    cond_dim = config.robot_state_feature.shape[0]
    if rgb_encoders:
        cond_dim += len(config.image_features) * rgb_encoders[0].feature_dim
    if config.env_state_feature:
        cond_dim += config.env_state_feature.shape[0]
    return cond_dim
