"""LeRobot's policies, by dotted class name; LeRobot itself is never imported here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from bac.adapters.host import Host
from bac.adapters.lerobot import (
    diffusion,
    eo1,
    evo1,
    fastwam,
    groot,
    lingbot_va,
    molmoact2,
    multi_task_dit,
    pi,
    smolvla,
    vla_jepa,
    wall_x,
    xvla,
)
from bac.adapters.lerobot.names import NOT_DENOISING, POLICIES
from bac.errors import UnsupportedPolicyError

_ADAPTERS: dict[str, Callable[[nn.Module], Host]] = {
    "diffusion": diffusion.host,
    "multi_task_dit": multi_task_dit.host,
    "pi0": pi.host,
    "pi05": pi.host,
    "smolvla": smolvla.host,
    "groot": groot.host,
    "xvla": xvla.host,
    "evo1": evo1.host,
    "vla_jepa": vla_jepa.host,
    "molmoact2": molmoact2.host,
    "eo1": eo1.host,
    "wall_x": wall_x.host,
    "fastwam": fastwam.host,
    "lingbot_va": lingbot_va.host,
}

NAMES = tuple(_ADAPTERS)
"""LeRobot's names of the policies that `bac` takes."""


def _uncompiled(adapt: Callable[[Any], Host]) -> Callable[[nn.Module], Host]:
    """Refuse a sampler that LeRobot compiled (`compile_model`): compiled code bypasses interceptors."""

    @functools.wraps(adapt)
    def host(policy: nn.Module) -> Host:
        found = adapt(policy)
        if compiled := _compiled_part(found):
            raise UnsupportedPolicyError(
                f"{type(policy).__name__}: its {compiled} is compiled, and compiled code bypasses the interceptors of "
                "bac. Load it with compile_model=False (lerobot-rollout: without --use_torch_compile). To spare "
                "Python's overhead, replay: bac.wrap(policy)"
            )
        return found

    return host


def _compiled_part(host: Host) -> str | None:
    """Name of the compiled part, read from the marks that torch.compile leaves on a callable and on a module."""
    sampler = vars(host.sampler_owner).get(host.sampler_attribute)  # LeRobot sets it on the instance
    if getattr(sampler, "_torchdynamo_orig_callable", None) is not None:
        return host.sampler_attribute
    return "denoiser" if hasattr(host.denoiser, "_orig_mod") else None


ADAPTERS = {POLICIES[name]: _uncompiled(adapt) for name, adapt in _ADAPTERS.items()}

_ONE_EVALUATION = "It makes an action chunk in one evaluation, so there is nothing to reuse."

REFUSED = {
    NOT_DENOISING["act"]: _ONE_EVALUATION,
    NOT_DENOISING["vqbet"]: _ONE_EVALUATION,
    NOT_DENOISING["tdmpc"]: "It plans in a latent world model.",
    NOT_DENOISING["pi0_fast"]: "It decodes tokens one after the other.",
    NOT_DENOISING["gaussian_actor"]: _ONE_EVALUATION,
}
