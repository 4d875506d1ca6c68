"""What the recipes of policies that see and read have in common."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import CONFIG_NAME
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import OBS_IMAGE
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from policies.demonstrations import OBS_WRIST, Demonstrations

CAMERAS = (OBS_IMAGE, OBS_WRIST)


def require_pictures_and_words(cfg: DictConfig, demonstrations: Demonstrations, name: str, record: str) -> None:
    """Check that a policy can learn from these demonstrations, in float32.

    Args:
        cfg: `configs/train.yaml`.
        demonstrations: The demonstrations.
        name: The policy, for the errors.
        record: Options of `envs.collect` that record such demonstrations.

    Raises:
        ValueError: The demonstrations have no pictures or no instructions, or the working weights are not float32.
    """
    if demonstrations.pictures is None or not demonstrations.instructions:
        raise ValueError(
            f"{cfg.data}: {name} learns from pictures and instructions, and these have none. Record them: "
            f"python -m envs.collect {record}"
        )
    if cfg.dtype != "float32":
        raise ValueError(f"dtype={cfg.dtype}: {name} adds its noise in float32; train it with dtype=float32")


def known_sentences(cfg: DictConfig, demonstrations: Demonstrations) -> list[str]:
    """The sentences whose words a policy knows: those that its weights began with, else the demonstrations'.

    Raises:
        ValueError: The weights to begin with are those of a policy that knows no sentences.
    """
    origin = cfg.output if cfg.resume else cfg.initial
    if origin is not None and (config := Path(origin) / CONFIG_NAME).is_file():
        known: list[str] = json.loads(config.read_text()).get("sentences", [])
        if not known:
            raise ValueError(f"{origin}: its config.json has no sentences, so it is not a policy of this recipe")
        return known
    return sorted(set(demonstrations.instructions))


def picture_features(demonstrations: Demonstrations) -> dict[str, PolicyFeature]:
    """Type and shape of the pictures of every camera, channels first, by LeRobot key."""
    return {
        key: PolicyFeature(FeatureType.VISUAL, (pictures.shape[3], *pictures.shape[1:3]))
        for key, pictures in demonstrations.cameras().items()
    }


def newest(batch: dict[str, Tensor]) -> dict[str, Any]:
    """The one observation of every window of a batch, with pictures in [0, 1] and channels first."""
    seen = {key: value[:, -1] if key.startswith("observation") else value for key, value in batch.items()}
    return {key: value.movedim(-1, 1).float() / 255 if key in CAMERAS else value for key, value in seen.items()}


def varied(seen: dict[str, Tensor], shift: int) -> dict[str, Tensor]:
    """The same observations with every picture varied; see `vary`."""
    return {key: vary(value, shift) if key in CAMERAS else value for key, value in seen.items()}


def vary(images: Tensor, shift: int, light: float = 0.2, noise: float = 0.02) -> Tensor:
    """Shift every picture by up to `shift` pixels, and change its light; few demonstrations go further.

    Args:
        images: Pictures, `[B, C, H, W]`, in [0, 1].
        shift: Largest shift in each direction [pixels]; the border is repeated.
        light: Contrast varies by this share; brightness by half of it.
        noise: Standard deviation of the noise of every pixel.
    """
    size = images.shape[-2:]
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    corners = torch.randint(2 * shift + 1, (len(images), 2)).tolist()
    shifted = torch.stack(
        [image[:, y : y + size[0], x : x + size[1]] for image, (y, x) in zip(padded, corners, strict=True)]
    )
    contrast, brightness = torch.rand(2, len(images), 1, 1, 1, device=images.device) * 2 - 1
    lit = shifted * (1 + light * contrast) + light / 2 * brightness
    return (lit + noise * torch.randn_like(lit)).clamp(0, 1)
