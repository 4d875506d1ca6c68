"""Options of a small pi0, as a LeRobot configuration."""

from dataclasses import dataclass, field

from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi0.configuration_pi0 import PI0Config

HEADS = 8  # LeRobot's joint attention of both towers has eight heads


@PreTrainedConfig.register_subclass("small_pi0")
@dataclass
class SmallPI0Config(PI0Config):
    """Options of `SmallPI0Policy`: those of `PI0Config`, and sizes. The variants of Gemma that it names are not used.

    Args:
        sentences: The instructions that the policy was trained on; it knows their words.
        patch_size: Height and width of a patch of a picture [pixels]; each one is a token.
        vision_width: Width of the vision transformer; its feed-forward layers are twice as wide.
        vision_layers: Layers of the vision transformer.
        vision_heads: Attention heads of the vision transformer.
        width: Width of the language model; its feed-forward layers are twice as wide.
        expert_width: Width of the action expert; its feed-forward layers are twice as wide.
        layers: Layers of the language model and of the action expert.
        head_dim: Width of each of their eight attention heads; even.

    Raises:
        ValueError: There are no sentences, or two sizes do not fit.
    """

    image_resolution: tuple[int, int] = (96, 96)
    chunk_size: int = 16
    n_action_steps: int = 8

    sentences: list[str] = field(default_factory=list)
    patch_size: int = 16
    vision_width: int = 96
    vision_layers: int = 3
    vision_heads: int = 4
    width: int = 128
    expert_width: int = 128
    layers: int = 4
    head_dim: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_resolution[0] % self.patch_size:
            raise ValueError(
                f"image_resolution: must be a multiple of patch_size ({self.patch_size}), got {self.image_resolution}"
            )
        if self.vision_width % self.vision_heads:
            raise ValueError(
                f"vision_width: must be a multiple of vision_heads ({self.vision_heads}), got {self.vision_width}"
            )
        if self.head_dim % 2 or self.expert_width % 2:
            raise ValueError(
                f"head_dim and expert_width: must be even, for places and times are turned into sines and cosines, "
                f"got {self.head_dim} and {self.expert_width}"
            )
