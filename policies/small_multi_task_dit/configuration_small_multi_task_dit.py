"""Options of a small Multi-Task DiT, as a LeRobot configuration."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig

WORDS_HEADS = 4  # attention heads of the text transformer


@PreTrainedConfig.register_subclass("small_multi_task_dit")
@dataclass
class SmallMultiTaskDiTConfig(MultiTaskDiTConfig):
    """Options of `SmallMultiTaskDiTPolicy`: those of `MultiTaskDiTConfig`, and sizes. The CLIP it names is not used.

    The policy sees one observation at a time, and all of its pictures, neither resized nor cropped. Rotary embeddings
    tell the distance of two actions; an embedding of each action's place in the chunk is learned besides.

    Args:
        sentences: The instructions that the policy was trained on; it knows their words.
        patch_size: Height and width of a patch of a picture [pixels]; each one is a token.
        vision_width: Width of a camera's vision transformer; its feed-forward layers are twice as wide.
        vision_layers: Layers of the vision transformer.
        vision_heads: Attention heads of the vision transformer.
        words_width: Width of the text transformer, which is not trained; its feed-forward layers are twice as wide.
        words_layers: Layers of the text transformer.

    Raises:
        ValueError: Two sizes do not fit, the policy is to see several observations, or pictures are to be resized or
            cropped.
    """

    n_obs_steps: int = 1
    horizon: int = 16
    n_action_steps: int = 2
    drop_n_last_frames: int | None = 0
    do_mask_loss_for_padding: bool = True
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )
    objective: str = "flow_matching"
    num_integration_steps: int = 10
    hidden_dim: int = 96
    num_layers: int = 4
    num_heads: int = 4
    dropout: float = 0.0
    timestep_embed_dim: int = 64
    use_positional_encoding: bool = True
    use_separate_rgb_encoder_per_camera: bool = True
    vision_encoder_lr_multiplier: float = 1.0  # it starts at random, like all else
    image_crop_shape: tuple[int, int] | None = None

    sentences: list[str] = field(default_factory=list)
    patch_size: int = 12
    vision_width: int = 96
    vision_layers: int = 3
    vision_heads: int = 4
    words_width: int = 64
    words_layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vision_width % self.vision_heads:
            raise ValueError(
                f"vision_width: must be a multiple of vision_heads ({self.vision_heads}), got {self.vision_width}"
            )
        if self.words_width % WORDS_HEADS:
            raise ValueError(f"words_width: must be a multiple of its {WORDS_HEADS} heads, got {self.words_width}")
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps: must be 1, for the policy sees one observation, got {self.n_obs_steps}")
        if self.image_resize_shape is not None or self.image_crop_shape is not None:
            raise ValueError(
                "image_resize_shape and image_crop_shape: small_multi_task_dit sees whole pictures; leave both out"
            )

    def validate_features(self) -> None:
        """Check that a vision transformer can cut the pictures into patches, besides what LeRobot checks.

        Raises:
            ValueError: A picture is no square, or no whole number of patches high.
        """
        super().validate_features()
        for key, feature in self.image_features.items():
            _, height, width = feature.shape
            if height != width or height % self.patch_size:
                raise ValueError(
                    f"{key}: pictures must be squares, a multiple of patch_size ({self.patch_size}) high, got "
                    f"{height} x {width}"
                )

    @property
    def chunk_size(self) -> int:
        """Actions of a chunk, under the name that LeRobot's other policies have for it."""
        return self.horizon

    @property
    def max_action_dim(self) -> int:
        """Size of an action, under that name."""
        return self.action_feature.shape[0]
