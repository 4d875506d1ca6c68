"""The unit that is cached."""

from __future__ import annotations

import pytest
from torch import nn

import bac
from bac.caching.block import BlockKind
from bac.errors import ScheduleError, UnsupportedPolicyError


@pytest.mark.parametrize("kind", BlockKind)
def test_a_kind_may_be_given_by_name(kind):
    block = bac.Block("a", kind.value, 0)
    assert block.kind is kind is bac.Block("a", kind, 0).kind


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ScheduleError, match="l0.ffn: kind must be one of self_attention, .*, layer, got 'ffn'"):
        bac.Block("l0.ffn", "ffn", 0)


def test_a_description_of_a_block_keeps_no_model_alive():
    layer = nn.Linear(2, 3)
    block = bac.Block("a", "layer", 7, layer, feeders=(bac.caching.block.Site(layer),))
    assert block.require_owner() is layer
    described = block.described()
    assert (described.name, described.kind, described.layer) == ("a", BlockKind.LAYER, 7)
    assert (described.owner, described.feeders) == (None, ())
    with pytest.raises(UnsupportedPolicyError, match="a: this block has no owner to patch"):
        described.require_owner()
