"""A policy is prepared for replay in the call for its first chunk, and whatever happens there, its actions stay."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import ADAPTERS
from bac.adapters.lerobot import NAMES
from bac.adapters.lerobot.names import POLICIES
from bac.caching.interceptors.patch import interceptors
from bac.lerobot import known, preparation, prepare_at_first_chunk, trial
from bac.lerobot.trial import Trial
from bac.plan.executor import Replayer
from bac.solvers import Multistep
from tests.lerobot import models
from tests.policies.models import observations, small_policy

pytestmark = pytest.mark.slow

FEW = bac.Denoising(Multistep(((0.5, 0.4, 0.0), (1.0, 0.0, 0.0, 0.1, -0.1))), (90, 40))
POLICIES_HERE: dict[str, Callable[[], nn.Module]] = {
    "dp_t": lambda: small_policy(n_layer=1),
    "smolvla": models.smolvla,
    "pi0": lambda: models.pi(name="pi0"),
    "multi_task_dit": lambda: models.multi_task_dit(num_inference_steps=7),
    "diffusion": lambda: models.diffusion(num_inference_steps=7),
}


@pytest.fixture(params=POLICIES_HERE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay pays, whatever else this machine does."""
    monkeypatch.setattr(trial, "_GAIN", float("inf"))


@pytest.fixture
def policy() -> nn.Module:
    return prepared_later(small_policy(n_layer=1))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    with caplog.at_level(logging.INFO, logger="bac.lerobot"):
        yield lambda: caplog.text


def prepared_later(policy: nn.Module, what: Any = None) -> nn.Module:
    bac.wrap(policy, what)
    assert prepare_at_first_chunk(policy, follows="" if what is None else "its file")
    return policy


def batch(name: str, size: int = 1) -> dict[str, Tensor]:
    if name == "dp_t":
        return observations(size)
    if name in ("multi_task_dit", "diffusion"):
        window = models.observation(size, steps=2, image=False)
        window["observation.environment_state"] = window["observation.state"]
        return window
    return models.observation(size)


def chunks(policy: nn.Module, *, name: str = "dp_t", number: int = 3, size: int = 1, seed: int = 0) -> list[Tensor]:
    """Chunks one after the other, with whatever the generators give, and one draw after them."""
    from bac.adapters import find_host

    torch.manual_seed(seed)
    with torch.inference_mode():
        made = [find_host(policy).predict(batch(name, size)) for _ in range(number)]
    return [*made, torch.rand(3)]


def are_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_every_chunk_from_the_first_on_is_the_untouched_policys_and_so_are_the_generators(name):
    expected = chunks(POLICIES_HERE[name](), name=name)
    policy = prepared_later(POLICIES_HERE[name]())
    assert are_equal(chunks(policy, name=name), expected)
    assert bac.describe(policy).plans and not bac.describe(policy).refusals


def test_a_policy_that_follows_a_file_makes_the_chunks_that_it_makes_intercepted():
    expected = chunks(bac.wrap(small_policy(n_layer=1), FEW, replay=False))
    policy = prepared_later(small_policy(n_layer=1), FEW)
    assert are_equal(chunks(policy), expected)
    assert len(bac.describe(policy).plans) == 1


def test_one_line_says_that_it_begins_and_one_what_came_of_it(policy, said):
    chunks(policy)
    begins, done = said().splitlines()
    assert (
        "bac: DiffusionTransformerPolicy is being prepared for replay, which takes as long as some 20 chunks" in begins
    )
    assert "bac: DiffusionTransformerPolicy replays: " in done
    assert " ms a chunk, " in done and " before, same actions; prepared in " in done
    assert done.endswith(" MB (BAC=off to leave it alone)")


def test_a_description_tells_latency_and_memory(policy):
    assert "prepare  waits for the first chunk" in str(bac.describe(policy))
    chunks(policy)
    text = str(bac.describe(policy))
    assert " before, same actions" in text and " ms a chunk, 0.1 MB" in text


def test_unwrapping_leaves_no_trace(name):
    policy = POLICIES_HERE[name]()
    chunks(policy, name=name)  # what the policy keeps of a run is its own
    before = {path: dict(vars(module)) for path, module in policy.named_modules()}
    chunks(prepared_later(policy), name=name)
    bac.unwrap(policy)
    assert {path: dict(vars(module)) for path, module in policy.named_modules()} == before


def test_without_a_gain_the_policy_is_left_as_it_is(policy, said, monkeypatch):
    monkeypatch.setattr(trial, "_GAIN", 0.0)
    assert are_equal(chunks(policy), chunks(small_policy(n_layer=1)))
    assert not list(interceptors(policy))
    assert "is not replayed, it runs as it is: replay brings no gain on this device (" in said()


def test_a_replay_that_changes_an_action_is_not_used(policy, said, monkeypatch):
    monkeypatch.setattr(Trial, "is_same", False)
    assert are_equal(chunks(policy), chunks(small_policy(n_layer=1)))
    assert not list(interceptors(policy))
    assert "a replayed chunk differs by 0.0e+00 from the policy's own" in said()


@pytest.mark.parametrize("what", [None, FEW])
@pytest.mark.parametrize("step", ["_record", "_record_and_try", "_tell"])
def test_if_it_fails_half_way_the_chunks_are_the_same(said, monkeypatch, step, what):
    def fail(*_: Any, **__: Any) -> None:
        torch.rand(7)
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(preparation.Preparation, step, fail)
    plain = small_policy(n_layer=1)
    expected = chunks(plain if what is None else bac.wrap(plain, what, replay=False))
    policy = prepared_later(small_policy(n_layer=1), what)
    assert are_equal(chunks(policy), expected)
    assert "its preparation failed (OutOfMemoryError: out of memory)" in said()
    assert bool(list(interceptors(policy))) == (what is not None)


def test_what_a_policy_remembers_is_what_its_own_first_chunk_left(said):
    """Here: how often its denoising loop ran, which decides, so that it is not replayed."""

    def counting(policy):
        policy.diffusion.num_runs = 0
        own = type(policy.diffusion).conditional_sample

        def sample(self, *args, **options):
            self.num_runs += 1
            return own(self, *args, **options) * (1.0 if self.num_runs < 4 else 0.5)

        policy.diffusion.__class__ = type("Counting", (type(policy.diffusion),), {"conditional_sample": sample})
        return policy

    own, prepared = counting(small_policy(n_layer=1)), prepared_later(counting(small_policy(n_layer=1)))
    assert are_equal(chunks(prepared, number=6), chunks(own, number=6))
    assert "is not replayed" in said()
    assert prepared.diffusion.num_runs == 6


def test_an_error_of_the_policy_itself_reaches_the_caller(policy):
    with torch.inference_mode(), pytest.raises(KeyError):
        policy.predict_action_chunk({})
    assert are_equal(chunks(policy), chunks(small_policy(n_layer=1)))


def test_a_sampler_that_fails_fails_as_without_bac(policy, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise FloatingPointError("of the policy")

    for made in (policy, small_policy(n_layer=1)):
        monkeypatch.setattr(made.diffusion.transformer, "forward", fail)
        with torch.inference_mode(), pytest.raises(FloatingPointError, match="of the policy"):
            made.predict_action_chunk(observations(1))
    assert not list(interceptors(policy))


def test_another_shape_is_interpreted_at_first_sight_and_recorded_at_the_second(policy):
    expected = [chunks(small_policy(n_layer=1), size=size, number=1) for size in (1, 2, 2, 3)]
    found, counts = [], []
    for size in (1, 2, 2, 3):
        found.append(chunks(policy, size=size, number=1))
        counts.append(len(bac.describe(policy).plans))
    assert all(map(are_equal, found, expected))
    assert counts == [1, 1, 2, 2]


def test_plans_are_bounded(policy, monkeypatch):
    monkeypatch.setattr("bac.plan.executor.CAPACITY", 2)
    for size in (1, 2, 3, 4, 1):
        assert are_equal(chunks(policy, size=size), chunks(small_policy(n_layer=1), size=size))
    assert len(bac.describe(policy).plans) == 2


def test_a_plan_is_launched_from_another_thread_than_the_one_that_recorded_it(policy):
    expected = chunks(small_policy(n_layer=1))
    chunks(policy, number=1)
    before, found = bac.describe(policy).num_replays, []
    thread = threading.Thread(target=lambda: found.append(chunks(policy)))
    thread.start()
    thread.join()
    assert are_equal(found[0], expected)
    assert bac.describe(policy).num_replays == before + 3


def test_a_call_that_comes_during_the_preparation_waits_for_it(policy, monkeypatch):
    begun, go_on, found = threading.Event(), threading.Event(), {}
    record = preparation.Preparation._record

    def slowly(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return record(*args)

    def predict(name: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            found[name] = policy.predict_action_chunk(observations(1), generator=generator)

    monkeypatch.setattr(preparation.Preparation, "_record", slowly)
    first = threading.Thread(target=predict, args=("first", 1))
    first.start()
    assert begun.wait(60)
    second = threading.Thread(target=predict, args=("second", 2))
    second.start()
    second.join(0.2)
    assert second.is_alive() and not found
    go_on.set()
    for thread in (first, second):
        thread.join()
    for name, seed in (("first", 1), ("second", 2)):
        with torch.inference_mode():
            expected = small_policy(n_layer=1).predict_action_chunk(
                observations(1), generator=torch.Generator().manual_seed(seed)
            )
        assert torch.equal(found[name], expected)


def test_many_calls_at_once_are_made_one_at_a_time_and_never_mixed(policy):
    expected = [chunks(small_policy(n_layer=1), number=1, size=size)[0].shape for size in (1, 2, 3)]
    made: dict[int, Any] = {}

    def predict(size: int) -> None:
        made[size] = [
            policy.predict_action_chunk(observations(size), generator=torch.Generator().manual_seed(size))
            for _ in range(5)
        ]

    threads = [threading.Thread(target=predict, args=(size,)) for size in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made[size][0].shape for size in (1, 2, 3)] == expected
    for size in (1, 2, 3):
        plain = small_policy(n_layer=1).predict_action_chunk(
            observations(size), generator=torch.Generator().manual_seed(size)
        )
        assert all(torch.equal(chunk, plain) for chunk in made[size])


def test_in_training_mode_the_policy_is_untouched(policy):
    plain = small_policy(n_layer=1).train()
    assert are_equal(chunks(policy.train(), number=2), chunks(plain, number=2))
    assert "waits for the first chunk" in str(bac.describe(policy))
    chunks(policy.eval(), number=1)
    assert len(bac.describe(policy).plans) == 1


def test_a_copy_waits_or_replays_on_its_own(policy):
    early = copy.deepcopy(policy)
    chunks(policy, number=1)
    late = copy.deepcopy(policy)
    expected = chunks(small_policy(n_layer=1))
    for copied in (early, late):
        assert are_equal(chunks(copied), expected)
        assert len(bac.describe(copied).plans) == 1


def test_a_policy_wrapped_without_replay_is_not_prepared():
    assert not prepare_at_first_chunk(bac.wrap(small_policy(n_layer=1), FEW, replay=False), follows="its file")


def test_only_policies_that_bac_knows_are_replayed_without_being_asked():
    class Own(nn.Module):
        """Holds state from call to call, for all that one knows."""

    assert "bac does not know it" in str(known.why_not_replayed(Own()))
    assert known.why_not_replayed(small_policy(n_layer=1)) is None
    assert set(known.NOT_REPLAYED) <= {POLICIES[name] for name in NAMES} <= set(ADAPTERS)


def test_the_preparation_stands_on_the_replayer(policy):
    (top,) = [found for _, name, found in interceptors(policy) if name == "conditional_sample"]
    assert isinstance(top, preparation.Preparation) and isinstance(top.original, Replayer)
