"""The laws of replay, for every adapter: plans make the untouched policy's chunks, whatever comes, or say why not."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.caching.interceptors.patch import interceptors, stack_on
from bac.errors import BacError
from bac.lerobot import prepare_at_first_chunk, trial
from bac.plan.executor import Replayer

Options = dict[str, Any]


class ReplayLaws:
    """Part of `AdapterContract`.

    Attributes:
        not_replayed: Part of the reason why runs cannot be replayed; None if they can.
        not_guided: Part of the reason why guided chunks are not replayed; None if they are.
    """

    not_replayed: str | None = None
    not_guided: str | None = None
    one_run_per_sample: bool = False

    def in_real_time(self, policy: Any) -> list[Options]:
        """Turn real-time chunking on. Returns what LeRobot's engine gives chunk after chunk; empty if there is none."""
        return []

    def other_numbers(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with other words, masks and the like, in the same shapes."""
        return {name: _other(value) for name, value in batch.items()}

    def replayed(self) -> Any:
        """A policy that is recorded at its first chunk. Skips the law if the kit declares that it cannot be."""
        policy = self.make_policy()  # type: ignore[attr-defined]
        if self.not_replayed is not None:
            with pytest.raises(BacError, match=self.not_replayed):
                bac.wrap(policy, bac.Denoising(), replay=bac.Replay(record="ahead"))
                bac.plan.record(policy, self.make_batch(3))  # type: ignore[attr-defined]
            pytest.skip(f"not replayed: {self.not_replayed}")
        bac.wrap(policy, replay=bac.Replay(record="first"))
        return policy

    def require_replays(self, policy: Any, least: int) -> None:
        """Require that plans made so many runs since the policy was wrapped."""
        assert replayer(policy).num_replays >= least, told(policy)

    def chunks(self, policy: Any, *sizes: int) -> list[Tensor]:
        """A chunk for every batch size, on one seed after the other."""
        return [self.predict(policy, size, seed) for seed, size in enumerate(sizes)]  # type: ignore[attr-defined]

    def test_a_replayed_dense_chunk_equals_the_untouched_one(self) -> None:
        policy, sizes = self.replayed(), (3, 3, 3)
        untouched = self.make_policy()  # type: ignore[attr-defined]
        assert are_equal(self.chunks(policy, *sizes), self.chunks(untouched, *sizes))
        self.require_replays(policy, 1)
        assert not replayer(policy).refusals
        assert are_equal(self.chunks(bac.unwrap(policy), *sizes), self.chunks(untouched, *sizes))

    def test_a_chunk_replayed_in_bf16_equals_the_interpreted_one_in_bf16(self) -> None:
        if self.not_replayed is not None:
            pytest.skip(f"not replayed: {self.not_replayed}")
        in_bf16, sizes = bac.Denoising(precision="bf16"), (3, 3)
        policy, interpreted = self.make_policy(), self.make_policy()  # type: ignore[attr-defined]
        bac.wrap(interpreted, in_bf16, replay=False)
        bac.wrap(policy, in_bf16, replay=bac.Replay(record="first"))
        assert are_equal(self.chunks(policy, *sizes), self.chunks(interpreted, *sizes))
        self.require_replays(policy, 1)

    def test_several_shapes_are_replayed(self) -> None:
        policy, sizes = self.replayed(), (3, 2, 3, 2, 3, 2)
        untouched = self.make_policy()  # type: ignore[attr-defined]
        assert are_equal(self.chunks(policy, *sizes), self.chunks(untouched, *sizes))
        assert len(replayer(policy).plans) == (1 if self.one_run_per_sample else 2)

    def test_a_new_episode_records_nothing_anew(self) -> None:
        policy = self.replayed()
        self.chunks(policy, 3, 3)
        recorded = list(replayer(policy).plans)
        assert recorded
        self.chunks(policy, 3, 3, 3)  # each after a reset
        assert list(replayer(policy).plans) == recorded, told(policy)

    def test_a_plan_recorded_in_one_thread_is_launched_from_another(self) -> None:
        policy, made = self.replayed(), []
        expected = self.chunks(self.make_policy(), 3, 3, 3)  # type: ignore[attr-defined]
        self.chunks(policy, 3, 3)
        before = replayer(policy).num_replays
        thread = threading.Thread(target=lambda: made.extend(self.chunks(policy, 3, 3, 3)))
        thread.start()
        thread.join()
        assert are_equal(made, expected)
        self.require_replays(policy, before + 3)

    def test_other_words_and_masks_never_get_the_actions_of_those_recorded(self) -> None:
        """What Python reads of them is baked into a plan; the rest is data."""
        policy, untouched = self.replayed(), self.make_policy()  # type: ignore[attr-defined]
        batch = self.make_batch(3)  # type: ignore[attr-defined]
        batches = [batch, self.other_numbers(batch)]
        for index in (0, 1, 0, 1):
            chunks = []
            for made in (policy, untouched):
                torch.manual_seed(index)
                made.reset()
                with torch.no_grad():
                    chunks.append(self.chunk(made, batches[index]))  # type: ignore[attr-defined]
            assert torch.equal(*chunks)
        self.require_replays(policy, 1)

    def test_prepared_under_real_time_chunking_both_kinds_of_chunk_are_the_untouched_ones(self, monkeypatch) -> None:
        monkeypatch.setattr(trial, "_GAIN", float("inf"))  # replay pays, whatever else this machine does
        policy, untouched = self.make_policy(), self.make_policy()  # type: ignore[attr-defined]
        calls = self.in_real_time(policy)
        if not calls:
            pytest.skip("no real-time chunking")
        self.in_real_time(untouched)
        bac.wrap(policy)
        assert prepare_at_first_chunk(policy, follows=False)
        made = [self._in_turn(one, calls) for one in (policy, untouched)]
        assert are_equal(*made)
        assert len(replayer(policy).plans) == (2 if self.not_guided is None else 1)
        if self.not_guided is not None:
            assert self.not_guided in str(bac.describe(policy))

    def _in_turn(self, policy: Any, calls: list[Options]) -> list[Tensor]:
        torch.manual_seed(0)
        policy.reset()
        with torch.no_grad():
            return [policy.predict_action_chunk(self.make_batch(1), **options) for options in calls]  # type: ignore[attr-defined]


def replayer(policy: nn.Module) -> Replayer:
    """The replayer on a policy, wherever in the stack."""
    for owner, attribute, _ in interceptors(policy):
        for found in stack_on(owner, attribute):
            if isinstance(found, Replayer):
                return found
    raise AssertionError("nothing replays this policy")


def told(policy: Any) -> str:
    """Why chunks were not replayed, as far as the replayer knows."""
    found = replayer(policy)
    changed = f"last change: {found._last_change or 'none'}, {len(found.plans)} plans, {found._num_records} recordings"
    return f"{found.refusals}, {found.interruptions}, {changed}"


def are_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def real_time_calls(num_actions: int, rows: int = 3) -> list[Options]:
    """As LeRobot's engine calls: a first chunk, then guided ones whose delay grows and shrinks."""
    source = torch.Generator().manual_seed(5)
    guided = [
        {"inference_delay": delay, "prev_chunk_left_over": torch.randn(rows, num_actions, generator=source)}
        for delay in (1, 2, 1)
    ]
    return [{"inference_delay": 0, "prev_chunk_left_over": None}, *guided]


def _other(value: Any) -> Any:
    if not isinstance(value, Tensor) or value.is_floating_point():
        return value
    changed = value.clone()
    if value.dtype == torch.bool:
        changed[..., -1] = ~changed[..., -1]
    else:
        changed[..., -1] += 1
    return changed
