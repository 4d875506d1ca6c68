"""Policies that see are asked in another way than those that are told the world's state."""

from types import SimpleNamespace

import pytest

from eval.play.pictures import predict_from_pictures, predictor
from eval.play.rollout import predict_chunks


@pytest.mark.parametrize(("seen", "expected"), [({}, predict_chunks), ({"a camera": 1}, predict_from_pictures)])
def test_a_policy_is_shown_pictures_if_it_sees_any(seen, expected):
    assert predictor(SimpleNamespace(policy=SimpleNamespace(config=SimpleNamespace(image_features=seen)))) is expected
