"""pi0 and SmolVLA at their full published sizes, and small enough for a dry run; random weights, no model hub.

Two cameras and 48 words, as their published benchmarks have. `eval.experiments.lerobot.real_sizes` has the sizes for a
CPU, where the vision towers are small.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from eval.experiments.lerobot.real_sizes import ACTIONS, STATE, pi0

CAMERAS = ("observation.images.top", "observation.images.wrist")
WORDS = 48


def full_pi0(device: str) -> nn.Module:
    """pi0: PaliGemma 2B, action expert 300M, both bfloat16 as LeRobot loads them; vision tower float32, 224 pixels."""
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from lerobot.policies.pi0.modeling_pi0 import PI0Policy

    with torch.device(device):  # 4 G parameters: made where they will be
        return PI0Policy(PI0Config(**_features(224, device), dtype="bfloat16")).to(device)


def full_smolvla(device: str) -> nn.Module:
    """SmolVLA: SmolVLM2-500M with 16 layers of its language model, action expert 16 x 720; float32, 512 pixels."""
    language = {
        "vocab_size": 49280, "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 16,
        "num_attention_heads": 15, "num_key_value_heads": 5, "head_dim": 64,
    }  # fmt: skip
    vision = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "patch_size": 16, "image_size": 512,
    }  # fmt: skip
    return _smolvla(language, vision, scale_factor=4, pixels=512, device=device)


def tiny_pi0(device: str) -> nn.Module:
    """pi0 with two narrow layers, one camera."""
    return pi0(tiny=True).to(device)


def tiny_smolvla(device: str) -> nn.Module:
    """SmolVLA with two narrow layers."""
    language = {
        "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "patch_size": 14, "image_size": 56,
    }  # fmt: skip
    return _smolvla(language, vision, scale_factor=2, pixels=56, device=device)


SIZES: dict[str, dict[str, Callable[[str], nn.Module]]] = {
    "full": {"pi0": full_pi0, "smolvla": full_smolvla},
    "tiny": {"pi0": tiny_pi0, "smolvla": tiny_smolvla},
}


def seen(policy: nn.Module) -> dict[str, Tensor]:
    """One observation of every camera of a policy, as its preprocessor would give it, `[1, ...]`."""
    from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE

    generator = torch.Generator().manual_seed(0)
    images = {name: feature.shape for name, feature in policy.config.image_features.items()}
    batch = {
        OBS_STATE: torch.rand(1, STATE, generator=generator),
        **{name: torch.rand(1, *shape, generator=generator) for name, shape in images.items()},
        OBS_LANGUAGE_TOKENS: torch.randint(3, 90, (1, WORDS), generator=generator),
        OBS_LANGUAGE_ATTENTION_MASK: torch.ones(1, WORDS, dtype=torch.bool),
    }
    device = next(policy.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def _smolvla(
    language: dict[str, int], vision: dict[str, int], *, scale_factor: int, pixels: int, device: str
) -> nn.Module:
    from lerobot.policies.smolvla import modeling_smolvla as modeling
    from lerobot.policies.smolvla import smolvlm_with_expert as parts
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from transformers import LlamaConfig, SmolVLMConfig

    text = LlamaConfig(**language, pad_token_id=0)
    vlm = SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale_factor)
    processor = mock.MagicMock()
    processor.tokenizer.fake_image_token_id, processor.tokenizer.global_image_token_id = 1, 2
    config = SmolVLAConfig(**_features(pixels, device), resize_imgs_with_padding=(pixels, pixels))
    with (
        torch.device(device),
        mock.patch.object(parts.AutoConfig, "from_pretrained", lambda _: copy.deepcopy(vlm)),
        mock.patch.object(parts.AutoProcessor, "from_pretrained", lambda _: processor),
    ):
        policy = modeling.SmolVLAPolicy(config)
    policy.model.vlm_with_expert.processor = None
    return policy.to(device)


def _features(pixels: int, device: str) -> dict[str, Any]:
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.utils.constants import ACTION, OBS_STATE

    image = PolicyFeature(FeatureType.VISUAL, (3, pixels, pixels))
    state, action = PolicyFeature(FeatureType.STATE, (STATE,)), PolicyFeature(FeatureType.ACTION, (ACTIONS,))
    return {
        "input_features": {OBS_STATE: state, **dict.fromkeys(CAMERAS, image)},
        "output_features": {ACTION: action},
        "device": device,
    }
