"""DP-T, by DDPM or by flow matching, from states."""

from collections.abc import Mapping
from typing import Any

import torch
from lerobot.utils.constants import ACTION
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from policies.demonstrations import Demonstrations
from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from policies.diffusion_transformer.solvers import FLOW

MEASURING_STEPS = 10
SIZES = """A transformer Diffusion Policy (Chi et al., RSS 2023): {n_layer} layers x {n_emb}, {n_head} heads,
{parameters} parameters, horizon {horizon}, {n_obs_steps} observation steps, {n_action_steps} actions executed per
chunk."""


class DiffusionTransformerRecipe:
    """See `policies.recipes.Recipe`."""

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations) -> None:
        features = demonstrations.features()
        self.config = DiffusionTransformerConfig(
            **OmegaConf.to_container(cfg.policy),
            input_features={key: feature for key, feature in features.items() if key != ACTION},
            output_features={ACTION: features[ACTION]},
            device=cfg.device,
            push_to_hub=False,
        )
        self._solver = FLOW if self.config.noise_scheduler_type == FLOW else "DDIM"
        self.extra: dict[str, Tensor] = {}
        self.drop_n_last = self.config.drop_n_last_frames
        self.measured_with = f"{self._solver}-{MEASURING_STEPS}"

    def processors(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any]:
        """See `Recipe`."""
        return make_diffusion_transformer_pre_post_processors(self.config, dict(stats))

    def build(self) -> DiffusionTransformerPolicy:
        """See `Recipe`."""
        return DiffusionTransformerPolicy(self.config)

    def loss(self, policy: DiffusionTransformerPolicy, batch: dict[str, Tensor]) -> Tensor:
        """See `Recipe`."""
        loss, _ = policy(batch)
        return loss

    def predict(self, policy: DiffusionTransformerPolicy, batch: dict[str, Tensor], seed: int) -> Tensor:
        """See `Recipe`. The solver is DDIM, or a flow's own, with `MEASURING_STEPS`."""
        policy.diffusion.use_solver(self._solver, MEASURING_STEPS)
        generator = torch.Generator(self.config.device).manual_seed(seed)
        return policy.predict_action_chunk(batch, generator=generator)

    def card(self) -> dict[str, str]:
        """See `Recipe`."""
        return {"title": "DP-T", "tags": "diffusion_transformer", "sizes": SIZES}
