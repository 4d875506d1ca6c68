"""Options of a small Diffusion Policy, as a LeRobot configuration."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig


@PreTrainedConfig.register_subclass("small_diffusion")
@dataclass
class SmallDiffusionConfig(DiffusionConfig):
    """Options of `SmallDiffusionPolicy`: those of `DiffusionConfig`, and widths. The backbone it names is not used.

    The policy sees one observation at a time by default, and all of its pictures, neither resized nor cropped.

    Args:
        vision_widths: Channels of the ResNet's first convolution, then of each of its residual units. The convolution
            and every unit but the last halve height and width.

    Raises:
        ValueError: A width is missing, or pictures are to be resized or cropped.
    """

    n_obs_steps: int = 1
    horizon: int = 16
    n_action_steps: int = 8
    drop_n_last_frames: int = 0
    do_mask_loss_for_padding: bool = True
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )
    pretrained_backbone_weights: str | None = None
    use_group_norm: bool = True
    down_dims: tuple[int, ...] = (64, 128)
    diffusion_step_embed_dim: int = 64

    vision_widths: tuple[int, ...] = (16, 32, 64, 96)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.vision_widths) < 2:
            raise ValueError(
                "vision_widths: must name the channels of a convolution and of at least one residual unit, got "
                f"{list(self.vision_widths)}"
            )
        if self.resize_shape is not None or self.crop_shape is not None:
            raise ValueError("resize_shape and crop_shape: small_diffusion sees whole pictures; leave both out")

    @property
    def chunk_size(self) -> int:
        """Actions of a chunk, under the name that LeRobot's other policies have for it."""
        return self.horizon

    @property
    def max_action_dim(self) -> int:
        """Size of an action, under that name."""
        return self.action_feature.shape[0]
