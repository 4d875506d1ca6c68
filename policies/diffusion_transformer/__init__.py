"""DP-T, the transformer variant of Diffusion Policy; importing this registers it with LeRobot."""

from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig

__all__ = ["DiffusionTransformerConfig"]
