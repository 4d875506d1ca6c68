"""LeRobot's policies, by dotted class name; LeRobot itself is never imported here. Read on versions 0.6.0 and 0.6.1."""

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
from bac.errors import UnsupportedPolicyError

_FAMILIES: dict[str, tuple[str, Callable[[nn.Module], Host]]] = {
    "diffusion": ("DiffusionPolicy", diffusion.host),
    "multi_task_dit": ("MultiTaskDiTPolicy", multi_task_dit.host),
    "pi0": ("PI0Policy", pi.host),
    "pi05": ("PI05Policy", pi.host),
    "smolvla": ("SmolVLAPolicy", smolvla.host),
    "groot": ("GrootPolicy", groot.host),
    "xvla": ("XVLAPolicy", xvla.host),
    "evo1": ("Evo1Policy", evo1.host),
    "vla_jepa": ("VLAJEPAPolicy", vla_jepa.host),
    "molmoact2": ("MolmoAct2Policy", molmoact2.host),
    "eo1": ("EO1Policy", eo1.host),
    "wall_x": ("WallXPolicy", wall_x.host),
    "fastwam": ("FastWAMPolicy", fastwam.host),
    "lingbot_va": ("LingBotVAPolicy", lingbot_va.host),
}

NAMES = tuple(_FAMILIES)
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


ADAPTERS = {
    f"lerobot.policies.{name}.modeling_{name}.{cls}": _uncompiled(adapt) for name, (cls, adapt) in _FAMILIES.items()
}

_ONE_EVALUATION = "It makes an action chunk in one evaluation, so there is nothing to reuse."

REFUSED = {
    "lerobot.policies.act.modeling_act.ACTPolicy": _ONE_EVALUATION,
    "lerobot.policies.vqbet.modeling_vqbet.VQBeTPolicy": _ONE_EVALUATION,
    "lerobot.policies.tdmpc.modeling_tdmpc.TDMPCPolicy": "It plans in a latent world model.",
    "lerobot.policies.pi0_fast.modeling_pi0_fast.PI0FastPolicy": "It decodes tokens one after the other.",
    "lerobot.policies.gaussian_actor.modeling_gaussian_actor.GaussianActorPolicy": _ONE_EVALUATION,
}
