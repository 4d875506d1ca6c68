"""LeRobot's SmolVLA with a small vision-language model, from pictures, states and instructions, by flow matching."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from lerobot.utils.constants import (
    ACTION,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
)
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from policies.demonstrations import Demonstrations
from policies.recipes.flow import Encoded, first_actions, flow_loss
from policies.recipes.pictures import newest, picture_features, require_pictures_and_words, varied
from policies.recipes.where import ANSWER, Where, last_present
from policies.small_vlm import write_small_vlm

VLM = "vlm"  # folder of the vision-language model's sizes and tokenizer, in the checkpoint
SIZES = """LeRobot's SmolVLA (Shukor et al., 2025), small, from a random start: {parameters} parameters,
{num_vlm_layers} layers, chunk {chunk_size}, {n_action_steps} actions executed per chunk, {num_steps} Euler steps.
It sees one picture, the arm's own state and the instruction."""


class SmolVLARecipe:
    """See `policies.recipes.Recipe`. The last chunk of an episode is shorter; `flow_loss` leaves out what pads it.

    Raises:
        ValueError: The demonstrations have no pictures or no instructions, or the working weights are not float32.
    """

    drop_n_last = 0

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations) -> None:
        require_pictures_and_words(cfg, demonstrations, "SmolVLA", "env=metaworld task=assembly-v3 pixels=96")
        self._cfg = cfg
        vlm = Path(cfg.output) / VLM
        if cfg.initial is not None and not cfg.resume:
            shutil.copytree(Path(cfg.initial) / VLM, vlm, dirs_exist_ok=True)
        elif not cfg.resume or not vlm.is_dir():  # resumed training goes on with the words that it began with
            write_small_vlm(vlm, demonstrations.instructions, **OmegaConf.to_container(cfg.vlm))
        features = demonstrations.features()
        self.config = SmolVLAConfig(
            **OmegaConf.to_container(cfg.policy),
            vlm_model_name=str(vlm),
            num_vlm_layers=cfg.vlm.layers,
            resize_imgs_with_padding=(cfg.vlm.image_size, cfg.vlm.image_size),
            max_state_dim=features[OBS_STATE].shape[0],
            max_action_dim=features[ACTION].shape[0],
            freeze_vision_encoder=False,
            train_expert_only=False,
            input_features={
                OBS_STATE: features[OBS_STATE],
                **picture_features(demonstrations),
            },
            output_features={ACTION: features[ACTION]},
            device=cfg.device,
            push_to_hub=False,
        )
        self._where = Where(demonstrations, cfg.vlm.width) if cfg.where else None
        self.extra = {ANSWER: self._where.answers} if self._where else {}
        self.measured_with = f"Euler-{self.config.num_steps}"

    def processors(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any]:
        """See `Recipe`."""
        return make_smolvla_pre_post_processors(self.config, dict(stats))

    def build(self) -> SmolVLAPolicy:
        """See `Recipe`. All layers learn; LeRobot freezes the last one of a pre-trained language model."""
        policy = SmolVLAPolicy(self.config).requires_grad_(True)
        model = policy.model.vlm_with_expert
        # SmolVLA multiplies what the connector makes of a picture by this root, which suits pre-trained weights.
        with torch.no_grad():
            model.get_vlm_model().connector.modality_projection.proj.weight.div_(
                model.config.text_config.hidden_size**0.5
            )
        return policy

    def loss(self, policy: SmolVLAPolicy, batch: dict[str, Tensor]) -> Tensor:
        """See `Recipe`. Pictures are varied first."""
        seen, cfg = varied(newest(batch), self._cfg.shift), self._cfg
        return flow_loss(policy, seen, encode, cfg.draws, where=self._where, weight=cfg.where)

    def predict(self, policy: SmolVLAPolicy, batch: dict[str, Tensor], seed: int) -> Tensor:
        """See `Recipe`."""
        return first_actions(policy, newest(batch), seed)

    def card(self) -> dict[str, str]:
        """See `Recipe`."""
        return {"title": "SmolVLA-class policy", "tags": "smolvla", "sizes": SIZES}


def encode(policy: SmolVLAPolicy, batch: dict[str, Tensor]) -> Encoded:
    """Encode pictures, words and states of a batch of observations."""
    model = policy.model
    images, image_masks = policy.prepare_images(batch)
    words, word_masks = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
    prefix, present, causal = model.embed_prefix(images, image_masks, words, word_masks, policy.prepare_state(batch))
    (outputs, _), cache = model.vlm_with_expert.forward(
        attention_mask=make_att_2d_masks(present, causal),
        position_ids=present.cumsum(1) - 1,
        past_key_values=None,
        inputs_embeds=[prefix, None],
        use_cache=True,
    )

    def velocity(draws: int, noisy: Tensor, time: Tensor) -> Tensor:
        return model.denoise_step(present.repeat(draws, 1), cache, noisy, time)

    return Encoded(cache, velocity, last_present(outputs, present))
