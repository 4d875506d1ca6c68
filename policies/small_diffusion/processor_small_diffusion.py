"""The processors of a small Diffusion Policy: LeRobot's own."""

from typing import Any

from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from policies.small_diffusion.configuration_small_diffusion import SmallDiffusionConfig


def make_small_diffusion_pre_post_processors(
    config: SmallDiffusionConfig,
    dataset_stats: dict[str, dict[str, Any]] | None = None,
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """Rename, add a batch dimension, move, normalise; and back.

    Args:
        config: Options of the policy.
        dataset_stats: "min" and "max" of each feature.
    """
    return make_default_pre_post_processors(config, dataset_stats)
