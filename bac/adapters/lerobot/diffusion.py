"""`diffusion`: LeRobot's Diffusion Policy, a convolutional U-Net; its blocks are the branches of its residual units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bac.adapters.diffusion_policy import with_noise_scheduler
from bac.adapters.host import Host
from bac.caching.block import Block, BlockKind, Site


def host(policy: Any) -> Host:
    """The sampler is the diffusion model's. Reuse skips all of a residual unit but its shortcut."""
    model = policy.diffusion
    found = Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=model.unet,
        sampler_owner=model,
        sampler_attribute="conditional_sample",
        blocks=tuple(_branch(*unit) for unit in enumerate(_units(model.unet))),
        uncovered="shortcuts, resampling, and the last convolution",
    )
    return with_noise_scheduler(found)


def _units(unet: Any) -> Iterator[tuple[str, Any]]:
    """Residual units with their paths, in order of evaluation."""
    for stages in ("down_modules", "mid_modules", "up_modules"):
        for index, stage in enumerate(getattr(unet, stages)):
            if stages == "mid_modules":
                yield f"{stages}.{index}", stage
            else:  # two units; the third entry only resamples
                yield from ((f"{stages}.{index}.{place}", stage[place]) for place in (0, 1))


def _branch(index: int, unit: tuple[str, Any]) -> Block:
    path, module = unit
    feeders = (Site(module.conv1), Site(module.cond_encoder))
    return Block(f"{path}.conv2", BlockKind.LAYER, index, module.conv2, feeders=feeders)
