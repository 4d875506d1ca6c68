"""Options of DP-T, the transformer variant of Diffusion Policy (Chi et al., RSS 2023), as a LeRobot configuration."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, DiffuserSchedulerConfig

from policies.diffusion_transformer.solvers import FLOW, NOISE_SCHEDULERS, TIMESTEP_SPACINGS, VELOCITY, UsualNoise

PREDICTION_TYPES = ("epsilon", "sample", VELOCITY)
FLOW_STEPS = 10  # denoising steps of a flow-matching policy, as in pi0 and SmolVLA


@PreTrainedConfig.register_subclass("diffusion_transformer")
@dataclass
class DiffusionTransformerConfig(PreTrainedConfig):
    """Options of `DiffusionTransformerPolicy`; the defaults are the 8 x 256 network of Diffusion Policy.

    Sizes are named as in Diffusion Policy (`n_layer`, `n_head`, `n_emb`, `p_drop_*`), the rest as in LeRobot's
    ``diffusion``. "observation.state" is required; "observation.environment_state" and images are optional.

    Args:
        n_obs_steps: Observation steps that the policy sees, including the current one (To).
        horizon: Actions predicted at once, counted from the first observation step (T).
        n_action_steps: Predicted actions that are executed, from the current step on (Ta).
        drop_n_last_frames: Number of frames at the end of an episode at which LeRobot's trainer starts no window.
            `None` takes T - Ta - To + 1, as Diffusion Policy does.
        n_layer: Decoder layers; each has three blocks that can be cached.
        n_head: Attention heads.
        n_emb: Width of the tokens, a multiple of `n_head`, even.
        n_cond_layers: Encoder layers over the condition tokens; 0 takes a small MLP instead.
        p_drop_emb: Dropout of the embeddings, in [0, 1).
        p_drop_attn: Dropout inside the layers, in [0, 1).
        causal_attn: An action token sees only itself and earlier ones.
        norm_first: Normalise before each branch (true in every published checkpoint) or after it.
        noise_scheduler_type: One of `NOISE_SCHEDULERS`.
        num_train_timesteps: Noise levels of the forward process.
        beta_schedule: Name of diffusers' noise schedule.
        beta_start: First beta of the schedules that have one.
        beta_end: Last beta of the schedules that have one.
        prediction_type: Prediction of the denoiser: the noise ("epsilon"), the clean actions ("sample"), or the
            velocity from clean actions to noise ("velocity"). The last one is flow matching; its noise scheduler is
            "FlowMatchEuler", its noise levels are shares of noise, and no beta schedule or clip applies.
        clip_sample: Clip the estimate of the clean actions at every denoising step (DDPM, DDIM).
        clip_sample_range: Half-width of that clip, in normalised action units.
        timestep_spacing: One of `TIMESTEP_SPACINGS`; `None` takes the noise scheduler's usual one.
        num_inference_steps: Denoising steps of a run (K); `None` takes all `num_train_timesteps`, or ten of a flow.
        do_mask_loss_for_padding: Leave actions past the end of an episode out of the loss.
        vision_backbone: torchvision ResNet for images.
        resize_shape: Height and width images are resized to [px].
        crop_ratio: Part of the resized image that is kept, in (0, 1].
        crop_shape: Height and width of the crop [px].
        crop_is_random: Crop at random places while training; the centre otherwise.
        pretrained_backbone_weights: torchvision weights of the backbone; needs `use_group_norm=False`.
        use_group_norm: Use group normalisation instead of batch normalisation; an average of weights needs it.
        spatial_softmax_num_keypoints: Keypoints that an image is reduced to.
        use_separate_rgb_encoder_per_camera: One encoder per camera instead of one for all.

    Raises:
        ValueError: An option is out of its range, or two do not fit.
    """

    n_obs_steps: int = 2
    horizon: int = 16
    n_action_steps: int = 8
    drop_n_last_frames: int | None = None

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MIN_MAX,
            "ENV": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )

    n_layer: int = 8
    n_head: int = 4
    n_emb: int = 256
    n_cond_layers: int = 0
    p_drop_emb: float = 0.0
    p_drop_attn: float = 0.3
    causal_attn: bool = True
    norm_first: bool = True

    noise_scheduler_type: str = "DDPM"
    num_train_timesteps: int = UsualNoise.num_train_timesteps
    beta_schedule: str = UsualNoise.beta_schedule
    beta_start: float = UsualNoise.beta_start
    beta_end: float = UsualNoise.beta_end
    prediction_type: str = UsualNoise.prediction_type
    clip_sample: bool = UsualNoise.clip_sample
    clip_sample_range: float = UsualNoise.clip_sample_range
    timestep_spacing: str | None = None
    num_inference_steps: int | None = None

    do_mask_loss_for_padding: bool = False

    vision_backbone: str = "resnet18"
    resize_shape: tuple[int, int] | None = None
    crop_ratio: float = 1.0
    crop_shape: tuple[int, int] | None = None
    crop_is_random: bool = True
    pretrained_backbone_weights: str | None = None
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: int = 32
    use_separate_rgb_encoder_per_camera: bool = True

    optimizer_lr: float = 1e-4
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 1e-3
    scheduler_name: str = "cosine"
    scheduler_warmup_steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_n_last_frames is None:
            self.drop_n_last_frames = self.horizon - self.n_action_steps - self.n_obs_steps + 1
        self._check_chunk()
        self._check_sizes()
        _check_member("noise_scheduler_type", self.noise_scheduler_type, NOISE_SCHEDULERS)
        _check_member("prediction_type", self.prediction_type, PREDICTION_TYPES)
        if (self.prediction_type == VELOCITY) != (self.noise_scheduler_type == FLOW):
            raise ValueError(
                f"prediction_type: {VELOCITY!r} and noise_scheduler_type {FLOW!r} go together, "
                f"got {self.prediction_type!r} and {self.noise_scheduler_type!r}"
            )
        if self.prediction_type == VELOCITY and self.num_inference_steps is None:
            self.num_inference_steps = FLOW_STEPS
        if self.timestep_spacing is not None:
            _check_member("timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)
        if self.resize_shape is not None and self.crop_ratio < 1.0:
            height, width = self.resize_shape
            self.crop_shape = (int(height * self.crop_ratio), int(width * self.crop_ratio))

    def _check_chunk(self) -> None:
        longest = self.horizon - self.n_obs_steps + 1
        if not 1 <= self.n_action_steps <= longest:
            raise ValueError(
                f"n_action_steps: at most horizon - n_obs_steps + 1 = {longest} actions lie ahead of the current "
                f"step, got {self.n_action_steps}. Shorten n_action_steps or lengthen horizon ({self.horizon})"
            )
        steps = self.num_inference_steps
        if steps is not None and not 1 <= steps <= self.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps: must be in 1..num_train_timesteps ({self.num_train_timesteps}), got {steps}"
            )

    def _check_sizes(self) -> None:
        if self.n_emb % self.n_head or self.n_emb % 2:
            raise ValueError(f"n_emb: must be even and a multiple of n_head ({self.n_head}), got {self.n_emb}")
        for name in ("p_drop_emb", "p_drop_attn"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: must be in [0, 1), got {getattr(self, name)}")
        if not 0.0 < self.crop_ratio <= 1.0:
            raise ValueError(f"crop_ratio: must be in (0, 1], got {self.crop_ratio}")

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW with Diffusion Policy's betas and weight decay."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        """Learning rate that warms up, then falls along a cosine."""
        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)

    def validate_features(self) -> None:
        """Check the features of the data.

        Raises:
            ValueError: There is no state or no action, or images differ in shape or are smaller than the crop.
        """
        if self.robot_state_feature is None or self.action_feature is None:
            have = sorted([*(self.input_features or {}), *(self.output_features or {})])
            raise ValueError(f"DP-T needs the features 'observation.state' and 'action', got {have}")
        shapes = {key: tuple(feature.shape) for key, feature in self.image_features.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"images: all cameras must have the same shape, got {shapes}")
        for key, (_, height, width) in shapes.items():
            if self.resize_shape is None and self.crop_shape is not None:
                crop_height, crop_width = self.crop_shape
                if crop_height > height or crop_width > width:
                    raise ValueError(f"crop_shape: must fit into {key} {(height, width)}, got {self.crop_shape}")

    @property
    def observation_delta_indices(self) -> list[int]:
        """Observation steps of a window, relative to the current one."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Action steps of a window, relative to the current one."""
        return list(range(1 - self.n_obs_steps, 1 - self.n_obs_steps + self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""
        return None


def _check_member(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")
