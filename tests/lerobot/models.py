"""LeRobot's own policy classes with random weights and a few hundred thousand parameters; nothing is fetched.

Configurations that LeRobot keeps fixed (Gemma's sizes) or fetches (CLIP, SmolVLM) are replaced while the policy is
built. Layers that LeRobot initialises to zero, so that blocks would do nothing, get random weights.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.utils.constants import (
    ACTION,
    OBS_ENV_STATE,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
)
from torch import Tensor, nn

from tests.contracts_replay import real_time_calls

STATE, ACTIONS, WORDS, IMAGE = 3, 2, 5, (3, 28, 28)
CAMERA = "observation.images.top"


def features(image: bool = True, state: int = STATE) -> dict[str, Any]:
    """What every policy here sees and does."""
    inputs = {OBS_STATE: PolicyFeature(FeatureType.STATE, (state,))}
    if image:
        inputs[CAMERA] = PolicyFeature(FeatureType.VISUAL, IMAGE)
    return {"input_features": inputs, "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (ACTIONS,))}}


def observation(batch_size: int, *, steps: int | None = None, image: bool = True) -> dict[str, Tensor]:
    """Random states, pictures and words; with a window of `steps` if asked for."""
    generator = torch.Generator().manual_seed(batch_size)
    window = (batch_size,) if steps is None else (batch_size, steps)
    batch = {
        OBS_STATE: torch.rand(*window, STATE, generator=generator),
        OBS_LANGUAGE_TOKENS: torch.randint(1, 40, (batch_size, WORDS), generator=generator),
        OBS_LANGUAGE_ATTENTION_MASK: torch.ones(batch_size, WORDS, dtype=torch.bool),
    }
    if image:
        batch[CAMERA] = torch.rand(*window, *IMAGE, generator=generator)
    return batch


def randomised(policy: nn.Module, *names: str) -> nn.Module:
    """Draw the parameters whose name contains one of `names`, and make the policy ready to run."""
    for name, parameter in policy.named_parameters():
        if any(part in name for part in names):
            nn.init.normal_(parameter, std=0.3)
    return policy.eval()


def in_real_time(policy: Any) -> list[dict[str, Any]]:
    """Turn real-time chunking on, as `lerobot-rollout --inference.type=rtc` does; calls as its engine makes them."""
    policy.config.rtc_config = RTCConfig(execution_horizon=3)
    policy.init_rtc_processor()
    return real_time_calls(ACTIONS)


@contextlib.contextmanager
def evaluations(denoiser: nn.Module) -> Iterator[list[float]]:
    """The timestep of every evaluation of a denoiser that takes it as its second argument; its runs are interpreted."""
    timesteps: list[float] = []
    handle = denoiser.register_forward_pre_hook(lambda _, inputs: timesteps.append(float(inputs[1].flatten()[0])))
    try:
        yield timesteps
    finally:
        handle.remove()


def built_once(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Build for the first call and copy for the others: building takes longer than running."""
    cached = functools.cache(build)

    @functools.wraps(build)
    def copied(**options: Any) -> nn.Module:
        return copy.deepcopy(cached(**options))

    return copied


def clip_words() -> Any:
    """Configuration of CLIP's half that reads, for a vocabulary of 40 words."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(vocab_size=40, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)


@built_once
def diffusion(**options: Any) -> nn.Module:
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    sizes = {"down_dims": (16, 24), "horizon": 8, "n_action_steps": 5, "diffusion_step_embed_dim": 8}
    seen = features(image=False)
    seen["input_features"][OBS_ENV_STATE] = PolicyFeature(FeatureType.ENV, (STATE,))  # it sees this or a picture
    config = DiffusionConfig(**seen, **{"device": "cpu", **sizes, **options})
    torch.manual_seed(3)
    return DiffusionPolicy(config).eval()


@built_once
def small_diffusion(**options: Any) -> nn.Module:
    """This repository's type of policy, which sees a picture."""
    from policies.small_diffusion.configuration_small_diffusion import SmallDiffusionConfig
    from policies.small_diffusion.modeling_small_diffusion import SmallDiffusionPolicy

    sizes = {"down_dims": (16, 24), "horizon": 8, "n_action_steps": 5, "diffusion_step_embed_dim": 8}
    sees = {"vision_widths": (3, 5, 7), "spatial_softmax_num_keypoints": 3, "noise_scheduler_type": "DDIM"}
    config = SmallDiffusionConfig(**features(), **{"device": "cpu", **sizes, **sees, **options})
    torch.manual_seed(3)
    return SmallDiffusionPolicy(config).eval()


@built_once
def multi_task_dit(*, state: int = STATE, **options: Any) -> nn.Module:
    from lerobot.policies.multi_task_dit import modeling_multi_task_dit as modeling
    from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
    from transformers import CLIPTextModel

    sizes = {"hidden_dim": 18, "num_layers": 2, "num_heads": 3, "horizon": 7, "timestep_embed_dim": 10}
    seen = features(image=False, state=state)
    config = MultiTaskDiTConfig(**seen, **{"n_action_steps": 5, "device": "cpu", **sizes, **options})
    torch.manual_seed(3)
    with mock.patch.object(modeling.CLIPTextModel, "from_pretrained", lambda _: CLIPTextModel(clip_words())):
        policy = modeling.MultiTaskDiTPolicy(config)
    return randomised(policy, "adaLN_modulation")


@built_once
def small_multi_task_dit(**options: Any) -> nn.Module:
    """This repository's type of policy, which sees a picture and needs no replacing."""
    from policies.small_multi_task_dit.configuration_small_multi_task_dit import SmallMultiTaskDiTConfig
    from policies.small_multi_task_dit.modeling_small_multi_task_dit import SmallMultiTaskDiTPolicy

    sizes = {"hidden_dim": 18, "num_layers": 2, "num_heads": 3, "horizon": 7, "timestep_embed_dim": 10}
    halves = {"patch_size": 14, "vision_width": 6, "vision_layers": 1, "vision_heads": 2, "words_width": 8}
    config = SmallMultiTaskDiTConfig(
        **features(),
        **{"n_action_steps": 5, "device": "cpu", **sizes, **halves, **options},
        sentences=[" ".join(f"word{number}" for number in range(40))],
    )
    torch.manual_seed(3)
    return randomised(SmallMultiTaskDiTPolicy(config), "adaLN_modulation")


def _tiny_gemma(variant: str) -> Any:
    """Stands in for `get_gemma_config`, which knows two sizes, both large."""
    from lerobot.policies.pi0.modeling_pi0 import GemmaConfig

    width = {"gemma_2b": 16, "gemma_300m": 10}[variant]
    return GemmaConfig(width=width, depth=2, mlp_dim=14, num_heads=8, num_kv_heads=1, head_dim=4)


def _tiny_paligemma() -> Any:
    from transformers import PaliGemmaConfig

    vision = {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
    return PaliGemmaConfig(vision_config={"model_type": "siglip_vision_model", **vision})


_FIXED = {257152: 40, 2048: 16}  # words that `pi0` insists on, and the width of Gemma 2B, to what they are here


@contextlib.contextmanager
def _few_words() -> Iterator[None]:
    """A vocabulary of 40 words, and pictures as wide as them."""
    embedding, linear = nn.Embedding.__init__, nn.Linear.__init__

    def small_embedding(self: nn.Embedding, words: int, *sizes: Any, **options: Any) -> None:
        embedding(self, _FIXED.get(words, words), *sizes, **options)

    def small_linear(self: nn.Linear, inputs: int, outputs: int, *sizes: Any, **options: Any) -> None:
        linear(self, inputs, _FIXED.get(outputs, outputs), *sizes, **options)

    with (
        mock.patch.object(nn.Embedding, "__init__", small_embedding),
        mock.patch.object(nn.Linear, "__init__", small_linear),
    ):
        yield


@contextlib.contextmanager
def small_gemma(name: str) -> Iterator[None]:
    """Within the context `pi0` or `pi05` is built small, by LeRobot too, where it loads a checkpoint."""
    from transformers import CONFIG_MAPPING

    modeling = importlib.import_module(f"lerobot.policies.{name}.modeling_{name}")
    configs = {"paligemma": _tiny_paligemma, "gemma": CONFIG_MAPPING["gemma"]}
    with (
        mock.patch.object(modeling, "CONFIG_MAPPING", configs),
        mock.patch.object(modeling, "get_gemma_config", _tiny_gemma),
        _few_words(),
    ):
        yield


@built_once
def pi(*, name: str, state: int = STATE, **options: Any) -> nn.Module:
    """`pi0` or `pi05`."""
    modeling = importlib.import_module(f"lerobot.policies.{name}.modeling_{name}")
    cls, config_cls = (getattr(modeling, f"{name.upper()}{kind}") for kind in ("Policy", "Config"))
    sizes = {"chunk_size": 5, "n_action_steps": 4, "max_state_dim": 4, "max_action_dim": 6}
    config = config_cls(
        **features(state=state),
        **{"image_resolution": (28, 28), "num_inference_steps": 7, "device": "cpu", **sizes, **options},
    )
    torch.manual_seed(3)
    with small_gemma(name):
        policy = cls(config)
    return randomised(policy, "norm.dense.weight", "layernorm.dense.weight")


@built_once
def small_pi0(*, state: int = STATE, **options: Any) -> nn.Module:
    """This repository's type of policy, which needs no replacing."""
    from policies.small_pi0.configuration_small_pi0 import SmallPI0Config
    from policies.small_pi0.modeling_small_pi0 import SmallPI0Policy

    towers = {"patch_size": 14, "vision_width": 6, "vision_layers": 1, "vision_heads": 2, "layers": 2}
    sizes = {"width": 16, "expert_width": 10, "head_dim": 4, "chunk_size": 5, "n_action_steps": 4}
    config = SmallPI0Config(
        **features(state=state),
        **{"image_resolution": (28, 28), "num_inference_steps": 7, "device": "cpu", **towers, **sizes, **options},
        sentences=[" ".join(f"word{number}" for number in range(40))],
        max_state_dim=4,
        max_action_dim=6,
    )
    torch.manual_seed(3)
    return SmallPI0Policy(config).eval()


def smolvlm() -> Any:
    """Configuration of a vision-language model with four layers and a vocabulary of 40 words."""
    from transformers import LlamaConfig, SmolVLMConfig

    language = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        pad_token_id=0,
    )
    vision = {"hidden_size": 6, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
    return SmolVLMConfig(
        vision_config={**vision, "patch_size": 14, "image_size": 28}, text_config=language, scale_factor=2
    )


@built_once
def smolvla(*, state: int = STATE, **options: Any) -> nn.Module:
    from lerobot.policies.smolvla import modeling_smolvla as modeling
    from lerobot.policies.smolvla import smolvlm_with_expert as parts
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig

    processor = mock.MagicMock()
    processor.tokenizer.fake_image_token_id, processor.tokenizer.global_image_token_id = 1, 2
    sizes = {"chunk_size": 5, "n_action_steps": 4, "max_state_dim": 4, "max_action_dim": 6, "num_vlm_layers": 4}
    config = SmolVLAConfig(
        **features(state=state),
        **{"resize_imgs_with_padding": (28, 28), "num_steps": 7, "device": "cpu", **sizes, **options},
    )
    torch.manual_seed(3)
    with (
        mock.patch.object(parts.AutoConfig, "from_pretrained", lambda _: smolvlm()),
        mock.patch.object(parts.AutoProcessor, "from_pretrained", lambda _: processor),
    ):
        policy = modeling.SmolVLAPolicy(config)
    policy.model.vlm_with_expert.processor = None
    return policy.eval()
