"""Kits of laws. A new adapter is tested by ten lines on top of `AdapterContract`."""

from __future__ import annotations

import copy
import pickle
from abc import ABC, abstractmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.errors import RunError, ScheduleError
from bac.recording import record_features
from tests.contracts_replay import ReplayLaws


class AdapterContract(ReplayLaws, ABC):
    """What must hold for every policy that `bac` takes. Subclass it, name the class `Test...`."""

    num_steps: int
    blocks_per_layer: int = 3
    goes_into_eval_mode: bool = False
    calls_outside_the_loop: int = 0
    takes_fewer_steps: bool = False  # of its own solver: `bac.Denoising(num_steps=...)`

    @abstractmethod
    def make_policy(self) -> nn.Module:
        """A policy in eval mode, the same one every time."""

    @abstractmethod
    def make_batch(self, batch_size: int) -> Any:
        """An observation batch as `predict_action_chunk` takes it."""

    @abstractmethod
    def set_num_steps(self, policy: nn.Module, num_steps: int) -> None:
        """Change how many denoising steps the policy makes."""

    def chunk(self, policy: nn.Module, batch: Any) -> Tensor:
        """Observation batch to action chunk, for policies with another way in than `predict_action_chunk`."""
        return policy.predict_action_chunk(batch)

    def predict(self, policy: nn.Module, batch_size: int = 3, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        policy.reset()
        with torch.no_grad():
            return self.chunk(policy, self.make_batch(batch_size))

    def schedule(self, policy: nn.Module, *steps: tuple[int, ...]) -> bac.Schedule:
        """Update steps for the policy's blocks, the given ones in turn."""
        host = find_host(policy)
        chosen = {block.name: steps[index % len(steps)] for index, block in enumerate(host.blocks)}
        return bac.Schedule(self.num_steps, chosen, host.fingerprint())

    def everywhere(self, policy: nn.Module) -> bac.Schedule:
        return self.schedule(policy, tuple(range(self.num_steps)))

    def staggered(self, policy: nn.Module) -> bac.Schedule:
        return self.schedule(policy, (0,), (0, 2), (0, 1, 3))

    def test_updating_everywhere_is_bit_equal_to_no_wrapping(self) -> None:
        policy = self.make_policy()
        dense = self.predict(policy)
        bac.wrap(policy, self.everywhere(policy))
        assert torch.equal(self.predict(policy), dense)

    def test_unwrap_leaves_no_trace(self) -> None:
        policy = self.make_policy()
        before = [dict(vars(module)) for module in policy.modules()]
        keys, dense = list(policy.state_dict()), self.predict(policy)
        bac.wrap(policy, self.staggered(policy))
        assert list(policy.state_dict()) == keys
        self.predict(policy)
        policy.reset()
        assert bac.unwrap(policy) is policy
        after = [dict(vars(module)) for module in policy.modules()]
        assert [sorted(names) for names in after] == [sorted(names) for names in before]
        assert not list(interceptors(policy))
        assert torch.equal(self.predict(policy), dense)

    def test_every_block_is_computed_exactly_at_its_update_steps(self) -> None:
        policy = self.make_policy()
        schedule, counts = self.staggered(policy), {}
        for block in find_host(policy).blocks:
            count_calls(block, counts)
        bac.wrap(policy, schedule, replay=False)
        self.predict(policy)
        runs = 3 if self.one_run_per_sample else 1
        outside = self.calls_outside_the_loop
        assert counts == {name: runs * len(steps) + outside for name, steps in schedule.update_steps.items()}

    def test_reuse_returns_the_feature_of_the_last_update(self) -> None:
        policy = self.make_policy()
        schedule = self.staggered(policy)
        bac.wrap(policy, schedule)
        features = record_features(policy, self.make_batch(3))
        for name, steps in schedule.update_steps.items():
            for step in range(self.num_steps):
                last = max(s for s in steps if s <= step)
                assert torch.equal(features[name][step], features[name][last])

    def test_a_second_chunk_equals_a_fresh_policys(self) -> None:
        used, fresh = self.make_policy(), self.make_policy()
        for policy in (used, fresh):
            bac.wrap(policy, self.staggered(policy))
        self.predict(used, seed=1)
        assert torch.equal(self.predict(used, seed=2), self.predict(fresh, seed=2))

    def test_the_batch_size_may_change_between_chunks(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        assert len(self.predict(policy, batch_size=3)) == 3
        assert len(self.predict(policy, batch_size=2)) == 2

    def test_another_number_of_steps_is_refused_and_the_policy_goes_on_working(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        expected = self.predict(policy)
        for wrong in (self.num_steps - 1, self.num_steps + 1):
            self.set_num_steps(policy, wrong)
            with pytest.raises(RunError, match=f"the schedule is for {self.num_steps}"):
                self.predict(policy)
        self.set_num_steps(policy, self.num_steps)
        assert torch.equal(self.predict(policy), expected)

    def test_fewer_steps_of_its_own_solver_are_those_it_makes_if_configured_so(self) -> None:
        policy, configured = self.make_policy(), self.make_policy()
        dense, known = self.predict(policy), find_host(policy).num_steps
        fewer = bac.Denoising(num_steps=self.num_steps - 1)
        if self.takes_fewer_steps:
            self.set_num_steps(configured, self.num_steps - 1)
            bac.wrap(policy, fewer, replay=False)
            assert torch.equal(self.predict(policy), self.predict(configured))
            assert find_host(policy).num_steps == known == self.num_steps  # its own, between two calls
        elif known is None:
            bac.wrap(policy, fewer, replay=False)
            with pytest.raises(RunError, match=f"the schedule is for {self.num_steps - 1}"):
                self.predict(policy)
        else:
            with pytest.raises(ScheduleError, match="bac does not know where .* reads its number of denoising steps"):
                bac.wrap(policy, fewer)
        assert torch.equal(self.predict(bac.unwrap(policy)), dense)

    def test_wrapping_again_reconfigures(self) -> None:
        policy = self.make_policy()
        dense = self.predict(policy)
        bac.wrap(policy, self.staggered(policy))
        bac.wrap(policy, self.everywhere(policy))
        assert torch.equal(self.predict(policy), dense)

    def test_a_deep_copy_works_on_its_own(self) -> None:
        policy = self.make_policy()
        dense = self.predict(policy)
        bac.wrap(policy, self.staggered(policy))
        cached = self.predict(policy)
        twin = copy.deepcopy(policy)
        bac.unwrap(policy)
        assert torch.equal(self.predict(twin), cached)
        assert torch.equal(self.predict(policy), dense)
        assert torch.equal(self.predict(bac.unwrap(twin)), dense)

    def test_pickling_names_unwrap(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        with pytest.raises(bac.BacError, match=r"bac\.unwrap\(policy\)"):
            pickle.dumps(policy)

    def test_training_mode_is_refused_where_the_policy_does_not_leave_it_by_itself(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        expected = self.predict(policy)
        policy.train()
        if self.goes_into_eval_mode:
            assert torch.equal(self.predict(policy), expected)
            return
        with pytest.raises(RunError, match=r"policy\.eval\(\)"):
            self.predict(policy)

    def test_wrapping_works_in_inference_mode_and_with_gradients(self) -> None:
        policy = self.make_policy()
        bac.wrap(policy, self.staggered(policy))
        expected = self.predict(policy)
        for mode in (torch.inference_mode(), torch.enable_grad()):
            torch.manual_seed(0)
            policy.reset()
            with mode:
                assert torch.equal(self.chunk(policy, self.make_batch(3)), expected)

    def test_blocks_are_named_kinded_and_in_order(self) -> None:
        blocks = find_host(self.make_policy()).blocks
        assert len({block.name for block in blocks}) == len(blocks)
        assert [block.layer for block in blocks] == [i // self.blocks_per_layer for i in range(len(blocks))]


def count_calls(block: bac.Block, counts: dict[str, int]) -> None:
    """Let the block's own callable count its calls, under whatever is put on top of it."""
    original = getattr(block.owner, block.attribute)

    def counted(*inputs: Any, **options: Any) -> Any:
        counts[block.name] = counts.get(block.name, 0) + 1
        return original(*inputs, **options)

    vars(block.owner)[block.attribute] = counted
