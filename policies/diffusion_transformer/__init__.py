"""DP-T, the transformer variant of Diffusion Policy, as a LeRobot policy of type ``diffusion_transformer``.

Reading `DiffusionTransformerConfig` from here registers the type with LeRobot, and so does LeRobot's own discovery,
which imports every module of the package. The denoiser and its sampler alone need PyTorch and diffusers only.
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
