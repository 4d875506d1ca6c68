"""DP-T, the transformer variant of Diffusion Policy, as a LeRobot policy of type ``diffusion_transformer``.

Importing `DiffusionTransformerConfig` from here registers the type with LeRobot. LeRobot's own discovery, which imports
every module of the package, does so too. The denoiser and its sampler need only PyTorch and diffusers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig

__all__ = ["DiffusionTransformerConfig"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig

    return DiffusionTransformerConfig
