"""LeRobot's Multi-Task DiT, small, from pictures, states and instructions, by flow matching or DDPM."""

from collections.abc import Mapping
from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_STATE
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from policies.demonstrations import Demonstrations
from policies.loading import set_steps
from policies.recipes.pictures import (
    known_sentences,
    newest,
    picture_features,
    require_pictures_and_words,
    varied,
)
from policies.recipes.where import ANSWER, Where
from policies.small_multi_task_dit.configuration_small_multi_task_dit import SmallMultiTaskDiTConfig
from policies.small_multi_task_dit.modeling_small_multi_task_dit import SmallMultiTaskDiTPolicy
from policies.small_multi_task_dit.processor_small_multi_task_dit import make_small_multi_task_dit_pre_post_processors

MEASURING_STEPS = 10
SIZES = """LeRobot's Multi-Task DiT (arXiv 2507.05331), small, from a random start: {parameters} parameters,
{num_layers} layers of width {hidden_dim} told by adaLN alone, a vision transformer of width {vision_width} for each
camera, horizon {horizon}, {n_action_steps} actions executed per chunk, objective {objective}. It sees the pictures of
{cameras}, the arm's own state and the instruction."""
PADDING = f"{ACTION}_is_pad"


class MultiTaskDiTRecipe:
    """See `policies.recipes.Recipe`. The last chunk of an episode is shorter; the loss leaves out what pads it.

    Raises:
        ValueError: The demonstrations have no pictures or no instructions, or the working weights are not float32.
    """

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations) -> None:
        require_pictures_and_words(cfg, demonstrations, "Multi-Task DiT", "env=so101 pixels=96 wrist=true")
        self._cfg = cfg
        features = demonstrations.features()
        self.config = SmallMultiTaskDiTConfig(
            **OmegaConf.to_container(cfg.policy),
            sentences=known_sentences(cfg, demonstrations),
            input_features={OBS_STATE: features[OBS_STATE], **picture_features(demonstrations)},
            output_features={ACTION: features[ACTION]},
            device=cfg.device,
            push_to_hub=False,
        )
        self._where = Where(demonstrations, _width_seen(self.config)) if cfg.where else None
        self.extra = {ANSWER: self._where.answers} if self._where else {}
        self.drop_n_last = self.config.drop_n_last_frames
        steps = self.config.num_integration_steps
        self.measured_with = f"Euler-{steps}" if self.config.is_flow_matching else f"DDIM-{MEASURING_STEPS}"

    def processors(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any]:
        """See `Recipe`."""
        return make_small_multi_task_dit_pre_post_processors(self.config, dict(stats))

    def build(self) -> SmallMultiTaskDiTPolicy:
        """See `Recipe`."""
        return SmallMultiTaskDiTPolicy(self.config)

    def loss(self, policy: SmallMultiTaskDiTPolicy, batch: dict[str, Tensor]) -> Tensor:
        """See `Recipe`. Pictures are varied first."""
        seen, cfg = varied(newest(batch), self._cfg.shift), self._cfg
        return denoising_loss(policy, seen, cfg.draws, where=self._where, weight=cfg.where)

    def predict(self, policy: SmallMultiTaskDiTPolicy, batch: dict[str, Tensor], seed: int) -> Tensor:
        """See `Recipe`. The steps of a flow are the policy's own, else DDIM's `MEASURING_STEPS`."""
        if self.config.is_diffusion:
            set_steps(policy, MEASURING_STEPS, "DDIM")
        shape = (len(batch[ACTION]), self.config.horizon, self.config.action_feature.shape[0])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.config.device)
        return policy.predict_action_chunk(newest(batch), noise=noise)

    def card(self) -> dict[str, str]:
        """See `Recipe`."""
        return {"title": "Multi-Task DiT", "tags": "multi_task_dit", "sizes": SIZES}


def _width_seen(config: SmallMultiTaskDiTConfig) -> int:
    """Width of what the cameras gave."""
    return config.vision_width * len(config.image_features)


def encode(policy: SmallMultiTaskDiTPolicy, batch: dict[str, Tensor]) -> Tensor:
    """What the denoiser is told of a batch of lone observations: states, what is seen, words; `[B, width]`."""
    return policy.observation_encoder.encode(policy._prepare_batch(batch))


def denoising_loss(
    policy: SmallMultiTaskDiTPolicy,
    batch: dict[str, Tensor],
    draws: int,
    *,
    where: Where | None = None,
    weight: float = 1.0,
) -> Tensor:
    """LeRobot's loss of Multi-Task DiT, with several draws of noise and time for every observation.

    Pictures are most of the work, and are encoded once. With one draw it is the loss of the policy's own `forward`.

    Args:
        policy: The policy in training.
        batch: One observation and one chunk of actions for each row, normalised, with ``action_is_pad``.
        draws: Draws for each row.
        where: Also asks what is seen where things are; ``batch["observation.answer"]`` has the answers.
        weight: Weight of that loss.
    """
    told = encode(policy, batch)
    actions = {ACTION: batch[ACTION].repeat(draws, 1, 1), PADDING: batch[PADDING].repeat(draws, 1)}
    loss = policy.objective.compute_loss(policy.noise_predictor, actions, told.repeat(draws, 1))
    if where is None:
        return loss
    first = batch[OBS_STATE].shape[-1]
    seen = told[:, first : first + _width_seen(policy.config)]
    return loss + weight * where.loss(seen, batch[ANSWER])
