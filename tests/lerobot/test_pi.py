"""`pi0`, `pi05` and the small pi0 of this repository."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from torch import Tensor, nn

from tests.contracts import AdapterContract
from tests.lerobot import models

pytestmark = pytest.mark.slow


class TestPi0(AdapterContract):
    num_steps = 7
    blocks_per_layer = 2
    name = "pi0"
    takes_fewer_steps = True
    goes_into_eval_mode = True

    def make_policy(self) -> nn.Module:
        return models.pi(name=self.name)

    def make_batch(self, batch_size: int) -> dict[str, Tensor]:
        return models.observation(batch_size)

    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        policy.config.num_inference_steps = num_steps

    def in_real_time(self, policy: nn.Module) -> list[dict[str, Any]]:
        return models.in_real_time(policy)

    def test_pickling_names_unwrap(self) -> None:
        """LeRobot defines these layers inside a function: not even an untouched policy can be pickled."""
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pickle.dumps(self.make_policy())


class TestPi05(TestPi0):
    name = "pi05"


class TestSmallPi0(TestPi0):
    def make_policy(self) -> nn.Module:
        return models.small_pi0()
