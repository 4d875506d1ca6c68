"""LeRobot's own policies at their real denoiser sizes, with random weights and without a model hub, for timing only.

Parts that run at every denoising step have their published sizes. Parts that run once per chunk (vision towers,
vocabularies, the language model beside `pi0`'s action expert) are small, except SmolVLA's language model. Patches
provide the configurations that LeRobot would download.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

IMAGE = "observation.images.top"
STATE, ACTIONS, WORDS = 14, 14, 8


def multi_task_dit() -> nn.Module:
    """Multi-task DiT at LeRobot's defaults (6 layers x 512, 32 actions), DDPM, one camera."""
    from lerobot.policies.multi_task_dit import modeling_multi_task_dit as modeling
    from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    vision = CLIPVisionConfig(num_hidden_layers=1, patch_size=16)
    config = MultiTaskDiTConfig(**_features(224))
    with (
        mock.patch.object(modeling.CLIPTextModel, "from_pretrained", lambda _: CLIPTextModel(CLIPTextConfig())),
        mock.patch.object(modeling.CLIPVisionModel, "from_pretrained", lambda _: CLIPVisionModel(vision)),
    ):
        return modeling.MultiTaskDiTPolicy(config)


def smolvla() -> nn.Module:
    """SmolVLA with SmolVLM2-500M's language model (16 of its layers) and action expert (16 layers x 720)."""
    from lerobot.policies.smolvla import modeling_smolvla as modeling
    from lerobot.policies.smolvla import smolvlm_with_expert as parts
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from transformers import LlamaConfig, SmolVLMConfig

    language = LlamaConfig(
        vocab_size=100,
        hidden_size=960,
        intermediate_size=2560,
        num_hidden_layers=16,
        num_attention_heads=15,
        num_key_value_heads=5,
        head_dim=64,
        pad_token_id=0,
    )
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vlm = SmolVLMConfig(
        vision_config={**vision, "patch_size": 14, "image_size": 56}, text_config=language, scale_factor=2
    )
    processor = mock.MagicMock()
    processor.tokenizer.fake_image_token_id, processor.tokenizer.global_image_token_id = 1, 2
    config = SmolVLAConfig(**_features(56), resize_imgs_with_padding=(56, 56))
    with (
        mock.patch.object(parts.AutoConfig, "from_pretrained", lambda _: copy.deepcopy(vlm)),
        mock.patch.object(parts.AutoProcessor, "from_pretrained", lambda _: processor),
    ):
        policy = modeling.SmolVLAPolicy(config)
    policy.model.vlm_with_expert.processor = None
    return policy


def pi0(*, tiny: bool = False) -> nn.Module:
    """pi0 with its action expert (Gemma 300M: 18 layers x 1024) beside a narrow language model of equal depth.

    `tiny` makes both two layers deep and narrow, where Python's share of a chunk is largest.
    """
    from lerobot.policies.pi0 import modeling_pi0 as modeling
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from transformers import CONFIG_MAPPING, PaliGemmaConfig

    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
    published = modeling.get_gemma_config

    def sizes(variant: str) -> Any:
        if tiny:
            width = 64 if variant == "gemma_2b" else 32
            return modeling.GemmaConfig(width=width, depth=2, mlp_dim=64, num_heads=8, num_kv_heads=1, head_dim=8)
        if variant == "gemma_300m":
            return published(variant)
        return modeling.GemmaConfig(width=64, depth=18, mlp_dim=64, num_heads=8, num_kv_heads=1, head_dim=256)

    parts = {
        "paligemma": lambda: PaliGemmaConfig(vision_config={"model_type": "siglip_vision_model", **vision}),
        "gemma": CONFIG_MAPPING["gemma"],
    }
    config = PI0Config(**_features(56), image_resolution=(56, 56), dtype="float32")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(modeling, "CONFIG_MAPPING", parts))
        stack.enter_context(mock.patch.object(modeling, "get_gemma_config", sizes))
        for layer, place in ((nn.Embedding, 0), (nn.Linear, 1)):
            stack.enter_context(mock.patch.object(layer, "__init__", _few_words(layer.__init__, place)))
        policy = modeling.PI0Policy(config)
    policy.model.paligemma_with_expert.paligemma.model.multi_modal_projector.linear = nn.Linear(32, 64)
    return policy


POLICIES: dict[str, Callable[[], nn.Module]] = {"multi_task_dit": multi_task_dit, "smolvla": smolvla, "pi0": pi0}

NUM_STEPS = {"multi_task_dit": 100, "smolvla": 10, "pi0": 10}


def set_num_steps(policy: nn.Module, num_steps: int) -> None:
    """Choose the number of denoising steps of later runs of one of `POLICIES`.

    Raises:
        ValueError: The policy is not one of `POLICIES`.
    """
    match policy.name:
        case "multi_task_dit":
            policy.objective.num_inference_steps = num_steps
        case "pi0":
            policy.config.num_inference_steps = policy.model.config.num_inference_steps = num_steps
        case "smolvla":
            policy.config.num_steps = policy.model.config.num_steps = num_steps
        case other:
            raise ValueError(f"policy: must be one of {', '.join(POLICIES)}, got {other!r}")


def observation(policy: nn.Module) -> dict[str, Tensor]:
    """One observation as the policy's preprocessor would give it, `[1, ...]`."""
    from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE

    generator = torch.Generator().manual_seed(0)
    size = policy.config.input_features[IMAGE].shape
    batch = {
        OBS_STATE: torch.rand(1, STATE, generator=generator),
        IMAGE: torch.rand(1, *size, generator=generator),
        OBS_LANGUAGE_TOKENS: torch.randint(3, 90, (1, WORDS), generator=generator),
        OBS_LANGUAGE_ATTENTION_MASK: torch.ones(1, WORDS, dtype=torch.bool),
    }
    device = next(policy.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def _features(pixels: int) -> dict[str, Any]:
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.utils.constants import ACTION, OBS_STATE

    image = PolicyFeature(FeatureType.VISUAL, (3, pixels, pixels))
    return {
        "input_features": {OBS_STATE: PolicyFeature(FeatureType.STATE, (STATE,)), IMAGE: image},
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
        "device": "cpu",
    }


def _few_words(initialise: Callable[..., None], place: int) -> Callable[..., None]:
    """Patch a layer to have 100 words instead of `pi0`'s 257,152: no denoising step uses the vocabulary."""

    def small(self: nn.Module, *sizes: Any, **options: Any) -> None:
        chosen = [100 if index == place and size == 257152 else size for index, size in enumerate(sizes)]
        initialise(self, *chosen, **options)

    return small
