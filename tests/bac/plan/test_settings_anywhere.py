"""A setting that the sampler reads is watched wherever it lies: in a class, in a dataclass, in a dictionary."""

from __future__ import annotations

import copy
import dataclasses
import types

import pytest
import torch

import bac
from tests.bac.models import TinyTransformerPolicy, obs


@dataclasses.dataclass
class Inner:
    scale: float = 1.0


@dataclasses.dataclass
class Outer:
    inner: Inner


class Configuration:
    scale = 1.0


class Settings(dict):
    """A dictionary with attributes, as many configurations are."""


class Scaled(TinyTransformerPolicy):
    """Multiplies the observation by a setting."""

    held: object = None
    read = staticmethod(lambda held: 1.0)

    def predict_action_chunk(self, batch, **options):
        return super().predict_action_chunk({"obs": batch["obs"] * self.read(self.held)}, **options)


def settings():
    found = Settings()
    found.scale = 1.0
    return found


def module():
    found = types.ModuleType("configuration")
    found.scale = 1.0
    return found


CASES = {
    "a class": (lambda: type("Own", (Configuration,), {}), lambda h: h.scale, lambda h: setattr(h, "scale", 2.0)),
    "a module": (module, lambda h: h.scale, lambda h: setattr(h, "scale", 2.0)),
    "a dataclass read by asdict": (
        lambda: Outer(Inner()),
        lambda h: sum(dataclasses.asdict(h)["inner"].values()),
        lambda h: setattr(h.inner, "scale", 2.0),
    ),
    "an object read by vars": (
        lambda: {"a": Inner()},
        lambda h: sum(vars(h["a"]).values()),
        lambda h: setattr(h["a"], "scale", 2.0),
    ),
    "an attribute of a dictionary": (settings, lambda h: h.scale, lambda h: setattr(h, "scale", 2.0)),
}


def predict(policy):
    torch.manual_seed(0)
    with torch.inference_mode():
        return policy.predict_action_chunk(obs(2))


@pytest.mark.parametrize("name", CASES)
def test_a_setting_is_noticed_wherever_it_lies(name):
    make, read, change = CASES[name]
    twin = type("Reading", (Scaled,), {"read": staticmethod(read)})(num_steps=3, num_layers=1)
    wrapped = copy.deepcopy(twin)
    wrapped.held, twin.held = make(), make()
    bac.wrap(wrapped, replay=bac.Replay(record="first"))
    assert torch.equal(predict(wrapped), predict(twin))
    change(wrapped.held)
    change(twin.held)
    for _ in range(9):
        assert torch.equal(predict(wrapped), predict(twin))
