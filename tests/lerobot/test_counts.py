"""Counts that a slow machine cannot blur: operators of a replayed chunk, and looks at numbers from Python.

A look at a number (`aten::item` and its kin) makes a GPU's host wait for it. A replayed chunk has none, plain or not.
Where a plan holds for given words and masks, their numbers are compared before the launch: on a GPU one copy to the
host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from torch import nn
from torch.profiler import ProfilerActivity, profile

import bac
from bac.adapters import find_host
from bac.lerobot import prepare_at_first_chunk, trial
from bac.lerobot.preparation import Preparation
from bac.plan.executor import Replayer
from tests.contracts_replay import real_time_calls, replayer
from tests.lerobot import models
from tests.policies.models import observations, small_policy

heads = pytest.importorskip("tests.lerobot.heads", reason="needs LeRobot with diffusers and transformers")
backbones = pytest.importorskip("tests.lerobot.backbones", reason="needs LeRobot with diffusers and transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LOOKS = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal",
         "aten::allclose", "aten::masked_select", "aten::unique_dim", "aten::_unique2"}  # fmt: skip

# Operators that a replayed chunk may dispatch, views not counted: what it does now, and a twentieth.
CEILINGS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "dp_t": (lambda: small_policy(n_layer=1), 190),
    "smolvla": (models.smolvla, 1_690),
    "pi0": (lambda: models.pi(name="pi0"), 860),
    "pi05": (lambda: models.pi(name="pi05"), 890),
    "multi_task_dit": (lambda: models.multi_task_dit(num_inference_steps=7), 530),
    "diffusion": (lambda: models.diffusion(num_inference_steps=7), 750),
    "vla_jepa": (lambda: heads.make(heads.VLAJEPA), 545),
    "evo1": (lambda: heads.make(heads.EVO1), 345),
    "xvla": (lambda: heads.make(heads.XVLA), 245),
    "molmoact2": (lambda: heads.make(heads.MolmoAct2), 1_115),
    "groot": (lambda: heads.make(heads.Groot), 600),
    "fastwam": (lambda: heads.make(backbones.FastWAM), 830),
    "eo1": (lambda: heads.make(backbones.EO1), 700),
    "wall_x": (lambda: heads.make(backbones.WallX), 1_510),
}


def in_real_time(policy: Any) -> nn.Module:
    policy.config.rtc_config = RTCConfig(execution_horizon=3)
    policy.init_rtc_processor()
    return policy


HEADS: dict[str, Callable[[], nn.Module]] = {
    "evo1": CEILINGS["evo1"][0], "molmoact2": CEILINGS["molmoact2"][0], "groot": CEILINGS["groot"][0]
}  # fmt: skip
GUIDED = HEADS | {name: lambda name=name: in_real_time(CEILINGS[name][0]()) for name in ("smolvla", "pi0", "pi05")}


def batch(name: str) -> Any:
    if name == "dp_t":
        return observations(1)
    if name in ("multi_task_dit", "diffusion"):
        seen = models.observation(1, steps=2, image=False)
        return {**seen, "observation.environment_state": seen["observation.state"]}
    return models.observation(1) if name in ("smolvla", "pi0", "pi05") else heads.encoded(1)


def looks(kind: type, predict: Callable[[], Any]) -> dict[str, int]:
    """Operators by which Python looks at numbers while an interceptor of this kind makes one chunk."""
    counted: dict[str, int] = {}
    call = kind.__call__

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            output = call(self, *args, **options)
        for event in seen.key_averages():
            if event.key in LOOKS:
                counted[event.key] = counted.get(event.key, 0) + event.count
        return output

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(kind, "__call__", watched)
        predict()
    return counted


@pytest.mark.parametrize("name", CEILINGS)
def test_a_replayed_chunk_looks_at_no_number_and_keeps_below_its_ceiling(name):
    make, ceiling = CEILINGS[name]
    policy = bac.wrap(make(), replay=bac.Replay(record="first"))
    found = replayer(policy)
    host = find_host(policy, found.blocks)
    with torch.inference_mode():
        for _ in range(3):
            host.predict(dict(batch(name)))
    before = found.num_replays
    assert looks(Replayer, lambda: host.predict(dict(batch(name)))) == {}
    assert found.num_replays > before
    (plan,) = found.plans
    assert ceiling / 1.25 < plan.num_operations <= ceiling, plan.num_operations


def test_kernels_of_a_compiled_expert_step_keep_below_their_ceiling():
    """Seven steps of two layers, and the prefix. pi0 itself has 18 layers: 17 kernels for each, and 9 for the rest."""
    policy = bac.wrap(models.pi(name="pi0"), replay=bac.Replay(exact=False, compile=True, record="first"))
    found = replayer(policy)
    host = find_host(policy, found.blocks)
    with torch.inference_mode():
        for _ in range(2):
            host.predict(dict(batch("pi0")))
    (plan,) = found.plans
    assert plan.skipped == ()
    assert plan.num_kernels <= 350, plan.num_kernels


@pytest.mark.parametrize("name", GUIDED)
def test_a_replayed_guided_chunk_looks_at_no_number_either(name, monkeypatch):
    """Nor does what is made of its delay beforehand."""
    monkeypatch.setattr(trial, "_GAIN", float("inf"))
    policy = GUIDED[name]()
    bac.wrap(policy)
    prepare_at_first_chunk(policy)
    actions = heads.ACTIONS if name in HEADS else models.ACTIONS
    first, *guided = real_time_calls(actions)
    with torch.no_grad():  # guidance differentiates, which inference mode forbids
        policy.predict_action_chunk(batch(name), **first)
    before = replayer(policy).num_replays
    for options in guided:
        assert looks(Preparation, lambda given=options: policy.predict_action_chunk(batch(name), **given)) == {}
    assert replayer(policy).num_replays == before + len(guided)
