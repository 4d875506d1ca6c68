"""LeRobot's pi0, small, from pictures, states and instructions, by flow matching."""

from collections.abc import Mapping
from typing import Any

from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d
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
from policies.recipes.pictures import known_sentences, newest, picture_features, require_pictures_and_words, varied
from policies.recipes.where import ANSWER, Where, last_present
from policies.small_pi0.configuration_small_pi0 import SmallPI0Config
from policies.small_pi0.modeling_small_pi0 import SmallPI0Policy
from policies.small_pi0.processor_small_pi0 import make_small_pi0_pre_post_processors
from policies.small_vlm import word_tokenizer

SIZES = """LeRobot's pi0 (Black et al., 2024), small, from a random start: {parameters} parameters, {layers} layers,
chunk {chunk_size}, {n_action_steps} actions executed per chunk, {num_inference_steps} Euler steps. It sees the pictures
of {cameras}, the arm's own state and the instruction."""


class PI0Recipe:
    """See `policies.recipes.Recipe`. The last chunk of an episode is shorter; `flow_loss` leaves out what pads it.

    Raises:
        ValueError: The demonstrations have no pictures or no instructions, or the working weights are not float32.
    """

    drop_n_last = 0

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations) -> None:
        require_pictures_and_words(cfg, demonstrations, "pi0", "env=so101 pixels=96 wrist=true")
        self._cfg = cfg
        features, cameras = demonstrations.features(), picture_features(demonstrations)
        sentences = known_sentences(cfg, demonstrations)
        told = {*sentences, *demonstrations.instructions}
        prompts = word_tokenizer(sentences)([f"{text}\n" for text in sorted(told)])["input_ids"]
        self.config = SmallPI0Config(
            **OmegaConf.to_container(cfg.policy),
            sentences=sentences,
            tokenizer_max_length=max(len(tokens) for tokens in prompts),
            max_state_dim=features[OBS_STATE].shape[0],
            max_action_dim=features[ACTION].shape[0],
            input_features={OBS_STATE: features[OBS_STATE], **cameras},
            output_features={ACTION: features[ACTION]},
            device=cfg.device,
            push_to_hub=False,
        )
        self._where = Where(demonstrations, cfg.policy.width) if cfg.where else None
        self.extra = {ANSWER: self._where.answers} if self._where else {}
        self.measured_with = f"Euler-{self.config.num_inference_steps}"

    def processors(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any]:
        """See `Recipe`."""
        return make_small_pi0_pre_post_processors(self.config, dict(stats))

    def build(self) -> SmallPI0Policy:
        """See `Recipe`."""
        return SmallPI0Policy(self.config)

    def loss(self, policy: SmallPI0Policy, batch: dict[str, Tensor]) -> Tensor:
        """See `Recipe`. Pictures are varied first."""
        seen, cfg = varied(newest(batch), self._cfg.shift), self._cfg
        return flow_loss(policy, seen, encode, cfg.draws, where=self._where, weight=cfg.where)

    def predict(self, policy: SmallPI0Policy, batch: dict[str, Tensor], seed: int) -> Tensor:
        """See `Recipe`."""
        return first_actions(policy, newest(batch), seed)

    def card(self) -> dict[str, str]:
        """See `Recipe`."""
        return {"title": "pi0-class policy", "tags": "pi0", "sizes": SIZES}


def encode(policy: SmallPI0Policy, batch: dict[str, Tensor]) -> Encoded:
    """Encode pictures and words of a batch of observations."""
    model = policy.model
    images, image_masks = policy._preprocess_images(batch)
    words, word_masks = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
    prefix, present, causal = model.embed_prefix(images, image_masks, words, word_masks)
    (outputs, _), cache = model.paligemma_with_expert.forward(
        attention_mask=prepare_attention_masks_4d(make_att_2d_masks(present, causal)),
        position_ids=present.cumsum(1) - 1,
        past_key_values=None,
        inputs_embeds=[prefix, None],
        use_cache=True,
    )
    state = policy.prepare_state(batch)

    def velocity(draws: int, noisy: Tensor, time: Tensor) -> Tensor:
        return model.denoise_step(state.repeat(draws, 1), present.repeat(draws, 1), cache, noisy, time)

    return Encoded(cache, velocity, last_present(outputs, present))
