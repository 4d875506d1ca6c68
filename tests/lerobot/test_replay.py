"""Which of LeRobot's policies replay from a plan: what README says of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.plan.executor import Replayer
from tests.lerobot import models

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

REPLAYED: dict[str, Callable[[], nn.Module]] = {
    "smolvla": models.smolvla,
    "pi0": lambda: models.pi(name="pi0"),
    "pi05": lambda: models.pi(name="pi05"),
    "multi_task_dit": lambda: models.multi_task_dit(num_inference_steps=7),
    "diffusion": lambda: models.diffusion(num_inference_steps=7),
    "vla_jepa": lambda: heads.make(heads.VLAJEPA),
    "evo1": lambda: heads.make(heads.EVO1),
    "xvla": lambda: heads.make(heads.XVLA),
    "molmoact2": lambda: heads.make(heads.MolmoAct2),
    "groot": lambda: heads.make(heads.Groot),
    "fastwam": lambda: heads.make(backbones.FastWAM),
    "eo1": lambda: heads.make(backbones.EO1),
    "wall_x": lambda: heads.make(backbones.WallX),
}
INTERPRETED = {
    "lingbot_va": (
        lambda: heads.make(backbones.LingBotVA),
        "writes into a parameter, a buffer or a cache of the policy",
    ),
}
PINNED = {"eo1": 3, "wall_x": 4}  # arguments whose numbers Python reads, so that a plan holds for them alone


def replayer_after_a_chunk(name: str, policy: nn.Module) -> Replayer:
    bac.wrap(policy, replay=bac.Replay(record="first"))
    if name in ("multi_task_dit", "diffusion"):
        batch = models.observation(1, steps=2, image=False)
        batch["observation.environment_state"] = batch["observation.state"]
    else:
        batch = models.observation(1) if name in ("smolvla", "pi0", "pi05") else heads.encoded(1)
    with torch.inference_mode():
        find_host(policy).predict(dict(batch))
    (replayer,) = (found for _, _, found in interceptors(policy) if isinstance(found, Replayer))
    return replayer


@pytest.mark.parametrize("name", REPLAYED)
def test_a_plan_repeats_the_interceptors_bit_for_bit(name):
    (plan,) = replayer_after_a_chunk(name, REPLAYED[name]()).plans
    assert plan.exact and plan.max_error == 0.0
    assert plan.num_operations < plan.stages[0].num_operations
    assert len(plan.pinned) == PINNED.get(name, 0)
    is_split = "split tokens" in [stage.name for stage in plan.stages]
    assert is_split != any(reason.startswith("split tokens: an error of") for reason in plan.skipped)


@pytest.mark.parametrize("name", INTERPRETED)
def test_what_no_program_can_say_is_interpreted_with_a_reason(name):
    make, reason = INTERPRETED[name]
    replayer = replayer_after_a_chunk(name, make())
    assert not replayer.plans and reason in replayer.refusals[0]
