"""Policies whose observation comes encoded: LeRobot's own action heads and sampling loops, without their encoders.

The encoders are gigabytes of pretrained vision-language models that run once per action chunk, before the loop. Each
class here is a sub-class of LeRobot's policy, so it is recognised as that, and calls the policy's own sampler. Policies
that denoise with a large model itself are in `backbones`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from lerobot.policies.evo1.flow_matching import FlowmatchingActionHead
from lerobot.policies.evo1.modeling_evo1 import Evo1Policy
from lerobot.policies.groot.groot_n1_7 import GR00TN17ActionHead, GR00TN17Config
from lerobot.policies.groot.modeling_groot import GrootPolicy
from lerobot.policies.molmoact2.modeling_molmoact2 import MolmoAct2Policy
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.policies.vla_jepa.action_head import VLAJEPAActionHead
from lerobot.policies.vla_jepa.configuration_vla_jepa import VLAJEPAConfig
from lerobot.policies.vla_jepa.modeling_vla_jepa import VLAJEPAPolicy
from lerobot.policies.xvla.action_hub import build_action_space
from lerobot.policies.xvla.modeling_xvla import XVLAModel, XVLAPolicy
from lerobot.policies.xvla.soft_transformer import SoftPromptedTransformer
from torch import Tensor, nn
from transformers import BatchFeature

from tests.lerobot.models import randomised

TOKENS, WIDTH, STATE, ACTIONS, HORIZON, STEPS = 6, 10, 3, 2, 5, 7


def encoded(batch_size: int) -> dict[str, Tensor]:
    """Tokens as an encoder gives them, `[B, 6, 10]`, their mask `[B, 6]`, states `[B, 3]`, and two words `[B, 2]`."""
    generator = torch.Generator().manual_seed(batch_size)
    return {
        "tokens": torch.randn(batch_size, TOKENS, WIDTH, generator=generator),
        "mask": torch.ones(batch_size, TOKENS, dtype=torch.bool),
        "state": torch.rand(batch_size, STATE, generator=generator),
        "words": torch.tensor([[5, 6]]).expand(batch_size, 2).clone(),
    }


def _under_rtc(**settings: Any) -> SimpleNamespace:
    """A configuration as `lerobot-rollout --inference.type=rtc` leaves it."""
    feature = SimpleNamespace(shape=(ACTIONS,))
    return SimpleNamespace(rtc_config=RTCConfig(execution_horizon=3), action_feature=feature, **settings)


class HeadAlone:
    """What LeRobot's policies do besides, without the encoders that they would do it to."""

    def reset(self) -> None:
        pass

    def train(self, mode: bool = True) -> Any:
        return nn.Module.train(self, mode)


class Groot(GrootPolicy):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        layers = {"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 6, "output_dim": 12}
        config = GR00TN17Config(
            backbone_embedding_dim=WIDTH,
            max_state_dim=STATE,
            max_action_dim=ACTIONS,
            action_horizon=HORIZON,
            hidden_size=12,
            input_embedding_dim=12,
            max_num_embodiments=2,
            num_inference_timesteps=STEPS,
            vl_self_attention_cfg={"num_layers": 0},
            diffusion_model_cfg={
                "positional_embeddings": None,
                "norm_type": "ada_norm",
                "final_dropout": True,
                "interleave_self_attention": True,
                **layers,
            },
        )
        self.config = _under_rtc()
        self._groot_model = nn.Module()
        self._groot_model.action_head = GR00TN17ActionHead(config)

    def reset(self) -> None:
        pass

    def predict_action_chunk(
        self, batch: dict[str, Tensor], inference_delay: int = 0, prev_chunk_left_over: Tensor | None = None
    ) -> Tensor:
        size = len(batch["state"])
        seen = {
            "backbone_features": batch["tokens"],
            "backbone_attention_mask": batch["mask"],
            "image_mask": (torch.arange(TOKENS) < 4).expand(size, TOKENS),
        }
        state = {"state": batch["state"][:, None], "embodiment_id": batch["words"][:, 1] % 2}
        options = None
        if prev_chunk_left_over is not None:
            left = len(prev_chunk_left_over)
            state["action"] = prev_chunk_left_over.expand(size, left, ACTIONS)
            options = {"action_horizon": left, "rtc_overlap_steps": left, "rtc_ramp_rate": 6.0}
            options |= {"rtc_frozen_steps": min(inference_delay, left)}
        head = self._groot_model.action_head
        return head.get_action(BatchFeature(data=seen), BatchFeature(data=state), options)["action_pred"]


class VLAJEPA(VLAJEPAPolicy):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        config = VLAJEPAConfig(
            chunk_size=HORIZON,
            n_action_steps=HORIZON,
            action_dim=ACTIONS,
            state_dim=STATE,
            action_model_type="DiT-test",
            action_num_layers=4,
            action_hidden_size=8,
            num_embodied_action_tokens_per_instruction=3,
            num_inference_timesteps=STEPS,
            device="cpu",
        )
        self.model = nn.Module()
        self.model.action_model = VLAJEPAActionHead(config, cross_attention_dim=WIDTH)

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        return self.model.action_model.predict_action(batch["tokens"], batch["state"])


class EVO1(HeadAlone, Evo1Policy):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = _under_rtc()
        self.rtc_processor = RTCProcessor(self.config.rtc_config)
        self.model = nn.Module()
        self.model.action_head = FlowmatchingActionHead(
            embed_dim=WIDTH,
            hidden_dim=8,
            action_dim=HORIZON * ACTIONS,
            horizon=HORIZON,
            per_action_dim=ACTIONS,
            num_heads=2,
            num_layers=2,
            num_inference_timesteps=STEPS,
            state_dim=STATE,
        )

    def predict_action_chunk(
        self, batch: dict[str, Tensor], inference_delay: int | None = None, prev_chunk_left_over: Tensor | None = None
    ) -> Tensor:
        mask = torch.ones(len(batch["state"]), HORIZON * ACTIONS)
        flat = self.model.action_head.get_action(
            batch["tokens"],
            state=batch["state"],
            action_mask=mask,
            inference_delay=inference_delay,
            prev_chunk_left_over=prev_chunk_left_over,
            rtc_processor=self.rtc_processor,
        )
        return flat.view(-1, HORIZON, ACTIONS)


class XVLAHead(XVLAModel):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = SimpleNamespace(dtype="float32")
        self.chunk_size, self.dim_action = HORIZON, ACTIONS + 1
        self.action_space = build_action_space("auto", real_dim=ACTIONS, max_dim=ACTIONS + 1)
        self.transformer = SoftPromptedTransformer(
            hidden_size=12,
            multi_modal_input_size=WIDTH,
            depth=2,
            num_heads=3,
            num_domains=2,
            dim_action=ACTIONS + 1,
            dim_propio=STATE,
            dim_time=4,
            len_soft_prompts=2,
            max_len_seq=40,
        )

    def forward_vlm(self, input_ids: Any, pixel_values: Tensor, image_mask: Any) -> dict[str, Tensor]:
        return {"vlm_features": pixel_values, "aux_visual_inputs": pixel_values[:, :2]}


class XVLA(XVLAPolicy):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = SimpleNamespace(num_denoising_steps=STEPS)
        self.model = XVLAHead()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        domain = torch.zeros(len(batch["state"]), dtype=torch.long)
        return self.model.generate_actions(
            input_ids=domain[:, None],
            image_input=batch["tokens"],
            image_mask=None,
            domain_id=domain,
            proprio=batch["state"],
            steps=self.config.num_denoising_steps,
        )


class MolmoBackbone(nn.Module):
    """Everything of the model that the action loop touches."""

    def __init__(self) -> None:
        from lerobot.policies.molmoact2.molmoact2_hf_model import configuration_molmoact2 as configuration
        from lerobot.policies.molmoact2.molmoact2_hf_model import modeling_molmoact2 as modeling

        super().__init__()
        sizes = {"max_action_horizon": HORIZON, "max_action_dim": ACTIONS, "hidden_size": 12, "num_layers": 2}
        config = configuration.MolmoAct2ActionExpertConfig(
            **sizes, num_heads=3, ffn_multiple_of=8, timestep_embed_dim=8
        )
        self.config = SimpleNamespace(
            mask_action_dim_padding=False, flow_matching_num_steps=STEPS, max_action_dim=ACTIONS
        )
        self.action_expert = modeling.ActionExpert(config, llm_dim=WIDTH, llm_kv_dim=WIDTH, llm_num_layers=2)

    def forward(self, tokens: Tensor, **_: Any) -> Any:
        return SimpleNamespace(past_key_values=[(tokens, -tokens)] * 2)

    def _extract_kv_states(self, states: Any) -> Any:
        return states

    def _depth_gate_from_condition(self, **_: Any) -> tuple[None, None]:
        return None, None

    def _apply_depth_gate_to_layer_kv_states(self, states: Any, *_: Any) -> Any:
        return states

    def _require_action_expert(self) -> nn.Module:
        return self.action_expert

    def _mask_action_dim_tensor(self, tensor: Tensor, **_: Any) -> Tensor:
        return tensor

    def _run_action_flow_loop(self, inputs: Any, steps: int) -> Tensor:
        from lerobot.policies.molmoact2.molmoact2_hf_model.modeling_molmoact2 import MolmoAct2Model

        return MolmoAct2Model._run_action_flow_loop(self, inputs, steps)


class MolmoAct2(HeadAlone, MolmoAct2Policy):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = _under_rtc(
            inference_action_mode="continuous",
            enable_inference_cuda_graph=True,
            num_inference_steps=STEPS,
            mask_action_dim_padding=False,
        )
        self.backbone = MolmoBackbone()
        self.rtc_processor = RTCProcessor(self.config.rtc_config)

    def _backbone(self) -> Any:
        return self.backbone

    def _encoder_attention_mask_for_action_expert(self, **_: Any) -> None:
        return None

    def _generation_action_horizon(self) -> int:
        return HORIZON

    def predict_action_chunk(
        self, batch: dict[str, Tensor], inference_delay: int | None = None, prev_chunk_left_over: Tensor | None = None
    ) -> Tensor:
        if inference_delay is None:
            return self._unguided(batch)
        return self._generate_actions_from_inputs_with_rtc(
            model_inputs={"tokens": batch["tokens"]},
            action_dim_is_pad=None,
            num_steps=self.config.num_inference_steps,
            generator=None,
            inference_delay=inference_delay,
            prev_chunk_left_over=prev_chunk_left_over,
            execution_horizon=None,
        )

    def _unguided(self, batch: dict[str, Tensor]) -> Tensor:
        from lerobot.policies.molmoact2.molmoact2_hf_model.inference import _ActionFlowInputs

        tokens, expert, steps = batch["tokens"], self._action_expert(), self.config.num_inference_steps
        size = len(tokens)
        trajectory = torch.randn(size, HORIZON, ACTIONS)
        context = expert.prepare_context(
            encoder_kv_states=[(tokens, -tokens)] * 2,
            batch_size=size,
            seq_len=HORIZON,
            device=tokens.device,
            dtype=tokens.dtype,
        )
        times = [torch.full((size,), step / steps) for step in range(steps)]
        inputs = _ActionFlowInputs(trajectory, context, expert.prepare_modulation_cache(times), None)
        return self._backbone()._run_action_flow_loop(inputs, steps)


def make(cls: type[nn.Module]) -> nn.Module:
    """One of these classes, or of those in `backbones`, with random weights, also where LeRobot starts from zero."""
    torch.manual_seed(3)
    return randomised(cls(), "modulation", "final_layer", "W", ".b", "scale_shift")
