"""PEFT's adapters may be disabled, switched, scaled, weighted and merged after a plan was recorded."""

from __future__ import annotations

import copy

import pytest
import torch

import bac
import bac.plan
from tests.bac.models import TinyTransformerPolicy
from tests.bac.plan.runs import FIRST, predict

peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:peft")]


@pytest.fixture(scope="module")
def adapted():
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["embed", "head"], init_lora_weights=False)
    model = peft.get_peft_model(TinyTransformerPolicy(), config)
    model.add_adapter("other", config)
    return model.eval()


def layers(model):
    return [module for module in model.modules() if hasattr(module, "lora_A")]


def scale(model):
    for layer in layers(model):
        layer.set_scale("default", 3.0)


def weigh(model):
    model.add_weighted_adapter(["default", "other"], [0.3, 0.7], "both", combination_type="linear")
    model.set_adapter("both")


def activate_both(model):
    model.base_model.set_adapter(["default", "other"])


CHANGES = [
    lambda model: model.base_model.disable_adapter_layers(),
    lambda model: model.set_adapter("other"),
    scale,
    weigh,
    activate_both,
    lambda model: model.merge_adapter(),
    lambda model: model.base_model.delete_adapter("default"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_adapters_is_seen_by_the_next_chunk(adapted, change):
    model, twin = copy.deepcopy(adapted), copy.deepcopy(adapted)
    policy, plain = model.get_base_model(), twin.get_base_model()
    bac.wrap(policy, replay=FIRST)
    before = [predict(policy), predict(policy)][-1]
    assert torch.equal(before, predict(plain))
    for changed in (model, twin):
        change(changed)
    expected = predict(plain)
    assert not torch.equal(expected, before), "the change does nothing, so this test shows nothing"
    assert torch.equal(predict(policy), expected)
    assert torch.equal(predict(policy), expected)
    assert len(bac.plan.plans(policy)) == 1
