"""Numbers that Python reads past PyTorch's operators: other words are another plan, measurements are refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import bac
import bac.plan
from tests.bac.models import TinyTransformerPolicy, obs

READS = {
    "a list of tensors": lambda batch: torch.tensor([batch["task"].max(), 1.0])[0],
    "a list of numbers of a tensor": lambda batch: torch.tensor([*batch["task"]]).sum(),
    "new_tensor": lambda batch: batch["obs"].new_tensor([*batch["task"]]).sum(),
    "str": lambda batch: 1.0 + str(batch["task"]).count("2"),
    "format": lambda batch: float(f"{batch['task'].sum()}"),
    "storage": lambda batch: sum(batch["task"].untyped_storage().tolist()),
    "DLPack": lambda batch: float(np.from_dlpack(batch["task"]).sum()),
    "NumPy": lambda batch: float(np.asarray(batch["task"]).sum()),
}


class Gained(TinyTransformerPolicy):
    """Multiplies the observation by a number that it reads off the batch."""

    read = staticmethod(lambda batch: 1.0)

    def predict_action_chunk(self, batch, **options):
        return super().predict_action_chunk({"obs": batch["obs"] * self.read(batch)}, **options)


def predict(policy, **batch):
    torch.manual_seed(0)
    with torch.inference_mode():
        return policy.predict_action_chunk({**obs(2), **batch})


def pair(read):
    policy = type("Reading", (Gained,), {"read": staticmethod(read)})(num_steps=3, num_layers=1)
    return bac.wrap(copy.deepcopy(policy), replay=bac.Replay(record="first")), policy


@pytest.mark.parametrize("name", READS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_other_words_are_never_answered_with_the_recorded_ones(name):
    wrapped, twin = pair(READS[name])
    for task in ([1, 0], [1, 0], [1, 2], [2, 2], [1, 0]):
        words = torch.tensor(task)
        assert torch.equal(predict(wrapped, task=words), predict(twin, task=words))


def test_words_read_so_are_replayed_where_they_are_the_same():
    wrapped, _ = pair(READS["a list of tensors"])
    for _ in range(3):
        predict(wrapped, task=torch.tensor([1, 0]))
    assert bac.plan.plans(wrapped)


def test_a_measurement_that_is_read_so_is_refused():
    wrapped, twin = pair(lambda batch: torch.tensor([batch["obs"].max() > 100, 1]).sum())
    with pytest.warns(RuntimeWarning, match="Python reads a value that depends on the arguments or the noise"):
        assert torch.equal(predict(wrapped), predict(twin))
