"""The processors of DP-T: they normalise its observations, and bring its actions back to the world's units."""

from typing import Any

import torch
from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig

CONSTANT_RANGE = 1e-4  # Diffusion Policy's threshold, in the units of the data


def make_diffusion_transformer_pre_post_processors(
    config: DiffusionTransformerConfig,
    dataset_stats: dict[str, dict[str, Any]] | None = None,
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """LeRobot's default pipelines: rename, add a batch dimension, move, normalise; and back.

    Args:
        config: Options of the policy.
        dataset_stats: "min" and "max" (or "mean" and "std" for images) of each feature. `widen_constant_dimensions`
            widens dimensions that hardly vary.
    """
    stats = None if dataset_stats is None else widen_constant_dimensions(dataset_stats)
    return make_default_pre_post_processors(config, stats)


def widen_constant_dimensions(stats: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give dimensions whose range is below `CONSTANT_RANGE` the range 2 around their centre.

    Scaling to [-1, 1] divides by the range. A quaternion that varied by 1e-8 in the data would turn a harmless
    1e-3 on the robot into 1e5; with a range of 2 it stays 1e-3 (Diffusion Policy does the same).
    """
    return {key: _widen(values) if {"min", "max"} <= values.keys() else values for key, values in stats.items()}


def _widen(values: dict[str, Any]) -> dict[str, Any]:
    low, high = (torch.as_tensor(values[name], dtype=torch.float32) for name in ("min", "max"))
    centre = (low + high) / 2
    constant = high - low < CONSTANT_RANGE
    return {
        **values,
        "min": torch.where(constant, centre - 1, low),
        "max": torch.where(constant, centre + 1, high),
    }
