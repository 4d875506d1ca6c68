"""How each kind of policy is built, trained and measured. `policies.trainer.Trainer` does the rest.

A recipe is all that `Trainer` does not know: the policy's configuration and processors, its random start, its loss on
a batch, and how it predicts. A new policy is a file here, a row in `RECIPES` and a file in ``configs/recipe``.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from policies.demonstrations import Demonstrations

if TYPE_CHECKING:
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.pretrained import PreTrainedPolicy
    from omegaconf import DictConfig

RECIPES = {
    "diffusion_transformer": "policies.recipes.diffusion_transformer:DiffusionTransformerRecipe",
    "multi_task_dit": "policies.recipes.multi_task_dit:MultiTaskDiTRecipe",
    "pi0": "policies.recipes.pi0:PI0Recipe",
    "smolvla": "policies.recipes.smolvla:SmolVLARecipe",
    "unet": "policies.recipes.unet:UNetRecipe",
}


class Recipe(Protocol):
    """One kind of policy, for one set of demonstrations.

    Attributes:
        config: The policy's configuration.
        extra: Further values of every control step that `loss` reads, `[n, ...]`; the policy is not given them.
        drop_n_last: Control steps at the end of each episode that get no window.
        measured_with: Solver and steps of `predict`, for the model card.
    """

    config: "PreTrainedConfig"
    extra: Mapping[str, Tensor]
    drop_n_last: int
    measured_with: str

    def __init__(self, cfg: "DictConfig", demonstrations: Demonstrations) -> None: ...

    def processors(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any]:
        """The pre- and postprocessor for demonstrations of these statistics."""

    def build(self) -> "PreTrainedPolicy":
        """A policy with random weights."""

    def loss(self, policy: "PreTrainedPolicy", batch: dict[str, Tensor]) -> Tensor:
        """The loss to minimise on a batch of windows; observations are `[B, To, ...]`."""

    def predict(self, policy: "PreTrainedPolicy", batch: dict[str, Tensor], seed: int) -> Tensor:
        """The actions that the policy executes, `[B, Ta, Da]`, normalised; `seed` draws the noise."""

    def card(self) -> dict[str, str]:
        """What the model card says of this kind of policy: ``title``, ``tags``, ``sizes``."""


def recipe_named(name: str) -> type[Recipe]:
    """Import a recipe.

    Raises:
        ValueError: There is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"policy_type={name}: no such recipe. Known: {', '.join(RECIPES)}")
    module, _, cls = RECIPES[name].partition(":")
    recipe: type[Recipe] = getattr(importlib.import_module(module), cls)
    return recipe
