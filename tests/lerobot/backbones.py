"""Policies that denoise with the large model itself, a vision-language or a video model, cut down to two layers.

Each class here is a sub-class of LeRobot's policy, so it is recognised as that, and calls the policy's own sampler.
It takes the batches of `heads.encoded`; what is frozen and runs once per action chunk, before the loop, is stubbed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.eo1.modeling_eo1 import EO1Policy
from lerobot.policies.fastwam.modeling_fastwam import FastWAMPolicy
from lerobot.policies.lingbot_va.modeling_lingbot_va import LingBotVAPolicy
from lerobot.policies.wall_x.modeling_wall_x import WallXPolicy
from torch import Tensor, nn

from tests.lerobot.heads import ACTIONS, HORIZON, STATE, STEPS, TOKENS, WIDTH

QWEN = {  # of the language models
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}


class TinyVAE(nn.Module):
    """Latents of one frame, `[4, 1, 4, 4]`, without looking at it closely."""

    def encode(self, images: list[Tensor], **_: Any) -> list[Tensor]:
        return [images[0].mean() + torch.arange(64.0).view(4, 1, 4, 4) / 64]


class FastWAM(FastWAMPolicy):
    """All of the model but the frozen encoders."""

    def __init__(self) -> None:
        from lerobot.policies.fastwam.configuration_fastwam import FastWAMConfig
        from lerobot.policies.fastwam.wan import modular, video_dit

        nn.Module.__init__(self)
        sizes = {"num_heads": 2, "attn_head_dim": 12, "num_layers": 2, "ffn_dim": 16, "text_dim": WIDTH}
        sizes |= {"freq_dim": 8, "eps": 1e-6}
        video = {"hidden_dim": 24, "in_dim": 4, "out_dim": 4, "patch_size": (1, 2, 2)}
        mode = {"seperated_timestep": True, "video_attention_mask_mode": "first_frame_causal"}
        self.config = FastWAMConfig(
            action_dim=ACTIONS,
            proprio_dim=STATE,
            action_horizon=8,
            n_action_steps=8,
            image_size=(32, 32),
            inference_seed=None,
            num_inference_steps=STEPS,
            base_model_id=None,
            device="cpu",
            input_features={
                "observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
                "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            },
        )
        experts = {
            "video": video_dit.WanVideoDiT(**sizes, **video, **mode),
            "action": modular.ActionDiT(**sizes, hidden_dim=14, action_dim=ACTIONS),
        }
        self.model = modular.FastWAM(
            video_expert=experts["video"],
            action_expert=experts["action"],
            mot=modular.MoT(experts, mot_checkpoint_mixed_attn=False),
            vae=TinyVAE(),
            text_dim=WIDTH,
            proprio_dim=STATE,
        )

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        seen = {
            "input_image": batch["tokens"].new_ones(len(batch["state"]), 3, 32, 32),
            "context": batch["tokens"],
            "context_mask": batch["mask"],
            "proprio": batch["state"],
        }
        return super().predict_action_chunk(seen)


class EO1(EO1Policy):
    """Complete, with a vision-language model of two layers, and a prompt without pictures."""

    def __init__(self) -> None:
        from lerobot.policies.eo1.configuration_eo1 import EO1Config
        from transformers import Qwen2_5_VLConfig

        language = {"vocab_size": 40, **QWEN}
        vision = {"depth": 1, "hidden_size": 8, "out_hidden_size": 16, "num_heads": 2, "intermediate_size": 8}
        super().__init__(
            EO1Config(
                vlm_config=Qwen2_5_VLConfig(text_config=language, vision_config=vision).to_dict(),
                pretrained_path="random",
                chunk_size=HORIZON,
                n_action_steps=HORIZON,
                max_state_dim=STATE,
                max_action_dim=ACTIONS + 1,
                num_denoise_steps=STEPS,
                dtype="float32",
                device="cpu",
                input_features={
                    "observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 28, 28)),
                    "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
                },
                output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
            )
        )

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        state_token, action_token = 30, 31
        prompt = torch.tensor([3, 4, state_token, 0, 0] + [action_token] * HORIZON)
        ids = prompt.expand(len(batch["state"]), -1).clone()
        ids[:, 3:5] = batch["words"]
        seen = {
            "input_ids": ids,
            "attention_mask": torch.cat([batch["mask"][:, -1:], torch.ones_like(ids)[:, 1:]], dim=1).long(),
            "mm_token_type_ids": torch.zeros_like(ids, dtype=torch.int32),
            "observation.state": batch["state"],
        }
        return super().predict_action_chunk({**seen, "state_token_id": state_token, "action_token_id": action_token})


class LingBotVA(LingBotVAPolicy):
    """Complete but for the frozen encoders: two cameras' latents and a prompt come encoded."""

    def __init__(self) -> None:
        from lerobot.policies.lingbot_va.configuration_lingbot_va import LingBotVAConfig

        super().__init__(
            LingBotVAConfig(
                num_attention_heads=2,
                attention_head_dim=12,
                action_dim=3,
                text_dim=WIDTH,
                freq_dim=8,
                ffn_dim=16,
                num_layers=2,
                dtype="float32",
                height=32,
                width=32,
                frame_chunk_size=2,
                num_inference_steps=3,
                action_num_inference_steps=STEPS - 1,
                guidance_scale=1.0,
                used_action_channel_ids=[0, 1],
                device="cpu",
                input_features={"observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 32, 32))},
                output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
            )
        )

    def _ensure_frozen_modules(self) -> None:
        pass

    def _maybe_init_prompt(self, batch: Any) -> None:
        self._prompt_embeds = torch.linspace(-1, 1, TOKENS * WIDTH).view(1, TOKENS, WIDTH)

    def _extract_raw_obs(self, batch: Any) -> Any:
        return batch

    def _encode_frames(self, raw_frames: list[Any]) -> Tensor:
        return torch.linspace(-1, 1, 48 * 8).view(1, 48, 1, 2, 4)


class WallX(WallXPolicy):
    """Complete, with two layers each to see and to think, two experts and a vocabulary of special tokens.

    Only fetching is replaced: of weights, of the tokenizer and of the image processor's sizes. As LeRobot loads it,
    the model is in bfloat16 but for the norms and the action head.

    Args:
        experts: Whether layers route prompt and actions to feed-forward networks of their own, as released weights do.
    """

    def __init__(self, experts: bool = True) -> None:
        from lerobot.policies.wall_x.configuration_wall_x import WallXConfig
        from lerobot.policies.wall_x.modeling_wall_x import Qwen2_5_VLMoEForAction

        model = Qwen2_5_VLMoEForAction(_qwen(experts), processor=_processor())
        with mock.patch.object(Qwen2_5_VLMoEForAction, "from_pretrained", return_value=model):
            super().__init__(
                WallXConfig(
                    chunk_size=HORIZON,
                    n_action_steps=HORIZON,
                    max_action_dim=ACTIONS + 1,
                    max_state_dim=STATE + 1,
                    device="cpu",
                    input_features={
                        "observation.images.image": PolicyFeature(FeatureType.VISUAL, (3, 28, 28)),
                        "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
                    },
                    output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
                )
            )
        self.num_steps = 10

    def preprocess_inputs(self, batch: dict[str, Any], **options: Any) -> Any:
        """LeRobot's own with smaller pictures, and a number of steps, for which the policy has no setting."""
        with mock.patch("lerobot.policies.wall_x.modeling_wall_x.RESOLUTION", 56):
            inputs = super().preprocess_inputs(batch, **options)
        inputs["num_inference_timesteps"] = self.num_steps
        return inputs

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        pixel = batch["tokens"][:, :3, :1, None].sigmoid()
        seen = {"observation.images.image": pixel.expand(-1, 3, 28, 28), "observation.state": batch["state"]}
        word = SPECIAL[1] if batch["words"][0, 1] % 2 else "door"  # of the words the tokenizer knows the special ones
        return super().predict_action_chunk({**seen, "task": f"close the {word}"})


SPECIAL = ("?", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
SPECIAL += ("<|video_pad|>", "<|propri|>", "<|action|>")


def _qwen(experts: bool) -> Any:
    from lerobot.policies.wall_x.qwen_model import Qwen2_5_VLConfig

    expert = {"hidden_size": 16, "intermediate_size": 12, "hidden_act": "silu"}
    language = {
        "vocab_size": len(SPECIAL),
        **QWEN,
        "pad_token_id": SPECIAL.index("<|endoftext|>"),
        "mlp_moe": experts,
        "initializer_range": 0.3,
        "num_experts": 2,
        "experts": [expert, expert],
        "dim_inputs": (16, 16),
        "dof_config": {"arm": ACTIONS + 1},
    }
    vision = {"depth": 2, "hidden_size": 8, "out_hidden_size": 16, "num_heads": 2, "intermediate_size": 8}
    ids = {f"{name}_token_id": SPECIAL.index(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ids |= {f"{name}_token_id": SPECIAL.index(f"<|{name}_pad|>") for name in ("image", "video")}
    return Qwen2_5_VLConfig(text_config=language, vision_config=vision, agent_pos_config={"arm": STATE + 1}, **ids)


def _processor() -> Any:
    """Qwen's image processor, and a tokenizer to which every word is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(SPECIAL)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="<|endoftext|>")
    return SimpleNamespace(tokenizer=tokenizer, image_processor=Qwen2VLImageProcessor())
