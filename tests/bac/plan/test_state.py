"""A recording runs the sampler more often than the caller; the policy must not remember it."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from collections import OrderedDict, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import numpy as np
import pytest
import torch
from torch import nn

import bac
import bac.plan
from bac.errors import RunError
from tests.bac.models import TinyTransformerPolicy, obs
from tests.bac.plan.runs import FIRST

CHUNKS = 6


class Remembering(TinyTransformerPolicy):
    """Makes the observation of what it remembers."""

    def __init__(self) -> None:
        super().__init__(num_steps=3, num_layers=1)
        self.begin()

    def begin(self) -> None:
        pass

    def recall(self, seen):
        raise NotImplementedError

    def predict_action_chunk(self, batch):
        return super().predict_action_chunk({**batch, "obs": self.recall(batch["obs"])})


class History(Remembering):
    def begin(self):
        self.seen = deque(maxlen=4)

    def recall(self, seen):
        self.seen.append(seen)
        return torch.stack(list(self.seen)).mean(0)


class ListOfDictionaries(Remembering):
    def begin(self):
        self.seen, self.by_name = [], defaultdict(list)

    def recall(self, seen):
        self.seen.append({"obs": seen})
        self.by_name["obs"].append(seen)
        return seen + self.seen[0]["obs"] + len(self.by_name["obs"])


class HiddenState(Remembering):
    def begin(self):
        self.hidden = torch.zeros(1, 2, 3)

    def recall(self, seen):
        self.hidden = 0.5 * self.hidden + seen
        return self.hidden


class RunningMean(Remembering):
    def begin(self):
        self.register_buffer("mean", torch.zeros(1, 2, 3))

    def recall(self, seen):
        self.mean.mul_(0.5).add_(seen)
        return seen - self.mean


class Array(Remembering):
    def begin(self):
        self.sum = np.zeros((1, 2, 3), np.float32)

    def recall(self, seen):
        self.sum += seen.numpy()
        return torch.from_numpy(self.sum.copy())


class Generator(Remembering):
    def begin(self):
        self.generator = torch.Generator().manual_seed(3)

    def recall(self, seen):
        return seen + torch.rand(seen.shape, generator=self.generator)


class NumPyCounter(Remembering):
    def begin(self):
        self.count = np.int64(0)

    def recall(self, seen):
        self.count += 1
        return seen + 1 if self.count > 4 else seen


class TensorCounter(NumPyCounter):
    def begin(self):
        self.count = torch.tensor(0)

    def recall(self, seen):
        self.count = self.count + 1
        return torch.where(self.count > 4, seen + 1, seen)


def chunk(policy, batch, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        return policy.predict_action_chunk(batch)


def feed(policy, before=lambda policy, place: None, batch=lambda place: obs(1, place)):
    """A wrapped copy and the policy itself make the same chunks; returns the wrapped one."""
    wrapped = bac.wrap(copy.deepcopy(policy), replay=FIRST)
    for place in range(CHUNKS):
        for each in (policy, wrapped):
            before(each, place)
        assert torch.equal(chunk(wrapped, batch(place), place), chunk(policy, batch(place), place)), place
    return wrapped


@pytest.mark.parametrize(
    "kind",
    [History, ListOfDictionaries, HiddenState, RunningMean, Array, Generator, NumPyCounter, TensorCounter],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_policy_that_remembers_makes_the_actions_that_it_makes_untouched(kind):
    feed(kind())


class Camera(Remembering):
    """Takes a picture off a queue; there is one for each chunk."""

    def begin(self):
        self.last = None

    def recall(self, seen):
        return seen + QUEUES[self.number].get_nowait()


QUEUES = {"plain": Queue(), "wrapped": Queue()}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_a_run_that_is_not_the_caller_s_raises_stays_inside():
    plain, wrapped = Camera(), bac.wrap(Camera(), replay=FIRST)
    plain.number, wrapped.number = "plain", "wrapped"
    for place in range(CHUNKS):
        for queue in QUEUES.values():
            queue.put(float(place))
        chunk(wrapped, obs(1, place), place)  # would raise queue.Empty
    assert "a second run failed (Empty())" in str(bac.describe(wrapped))


class Scaling(Remembering):
    def recall(self, seen):
        return seen.mul_(2.0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_argument_that_a_run_writes_to_is_written_to_once(mode):
    wrapped = bac.wrap(Scaling(), replay=FIRST)
    for place in range(3):
        with mode():
            batch = obs(1, place)
            wrapped.predict_action_chunk(batch)
        assert torch.equal(batch["obs"], 2 * obs(1, place)["obs"])
    assert "it writes into an argument" in str(bac.describe(wrapped))


class Words(Remembering):
    """Divides by the number of words, which it reads where no tape sees it."""

    def predict_action_chunk(self, batch):
        count = torch.FloatTensor([batch["mask"].sum(), 1])[0]
        return TinyTransformerPolicy.predict_action_chunk(self, {"obs": batch["obs"] / count})


class Cameras(Remembering):
    """Looks at two pictures side by side, in threads, where no tape sees it."""

    def predict_action_chunk(self, batch):
        with ThreadPoolExecutor(2) as pool:
            seen = sum(pool.map(lambda picture: picture.float().mean((1, 2)) / 255, batch["pictures"]))
        return TinyTransformerPolicy.predict_action_chunk(self, {"obs": batch["obs"] + seen})


def mask(place):
    return torch.arange(8)[None] < (2 if place < 4 else 8)


def picture(place):
    return torch.randint(0, 256, (1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(place))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (Words, lambda place: {"mask": mask(place)}),
        (Cameras, lambda place: {"pictures": [picture(2 * place), picture(2 * place + 1)]}),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_pictures_and_masks_that_are_read_unseen_are_never_those_of_the_recording(kind, more):
    feed(kind(), batch=lambda place: {**obs(1, place), **more(place)})


class Limited(Remembering):
    """Clamps its actions to a limit of which `torch.tensor` reads the number."""

    def begin(self):
        self.register_buffer("limit", torch.tensor(1.0))

    def predict_action_chunk(self, batch):
        return TinyTransformerPolicy.predict_action_chunk(self, batch).clamp(max=torch.tensor([self.limit, 0.5]))


def test_a_limit_that_is_lowered_holds_at_once():
    wrapped = feed(Limited(), lambda policy, place: policy.limit.fill_(1.0 if place < 4 else -3.0))
    assert bac.plan.plans(wrapped)


class Observation:
    def __init__(self, place):
        self.state = obs(1, place)["obs"]


class OfObjects(Remembering):
    def predict_action_chunk(self, batch):
        return TinyTransformerPolicy.predict_action_chunk(self, {"obs": batch.state})


def test_observations_that_are_objects_are_not_kept_alive():
    wrapped, alive = bac.wrap(OfObjects()), weakref.WeakSet()
    for place in range(20):
        seen = Observation(place)
        alive.add(seen)
        chunk(wrapped, seen, place)
        del seen
    gc.collect()
    assert len(alive) < 3


def test_a_plan_recorded_ahead_is_for_the_class_of_mapping_that_was_given(caplog):
    wrapped = bac.wrap(TinyTransformerPolicy(num_steps=3, num_layers=1), replay=bac.Replay(record="ahead"))
    bac.plan.record(wrapped, OrderedDict(obs(1)))
    chunk(wrapped, OrderedDict(obs(1, 1)), 0)
    assert bac.describe(wrapped).num_replays == 1
    with caplog.at_level(logging.INFO):
        chunk(wrapped, obs(1), 0)
    assert "no plan was recorded ahead for arguments of these shapes and types" in caplog.text


def test_a_plan_may_be_recorded_ahead_for_an_observation_that_is_a_tensor():
    class OfTensors(Remembering):
        def predict_action_chunk(self, batch):
            return TinyTransformerPolicy.predict_action_chunk(self, {"obs": batch})

    assert bac.plan.record(bac.wrap(OfTensors()), obs(1)["obs"])
    with pytest.raises(RunError):
        bac.plan.record(nn.Identity(), obs(1))
