"""Adapters: where a policy's denoiser is, what its blocks are, and when a denoising run starts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from typing import Any, Protocol, runtime_checkable

from torch import nn

from bac.adapters import torch as torch_adapter
from bac.adapters.host import Host, dotted_name
from bac.adapters.policies import LAYOUTS, REFUSED, Layout
from bac.block import Block
from bac.errors import UnsupportedPolicyError


@runtime_checkable
class ActionChunkPolicy(Protocol):
    """LeRobot's policy interface, as far as `bac` uses it."""

    def reset(self) -> Any:
        """Forget the episode."""

    def predict_action_chunk(self, batch: Any) -> Any:
        """Observations to action chunk: one denoising run."""


def find_host(policy: object, blocks: Sequence[Block] | None = None) -> Host:
    """Take a policy apart.

    Args:
        policy: An `nn.Module`: one of the classes in `bac.adapters.policies`, or any other with `reset` and
            `predict_action_chunk` that holds PyTorch transformer layers.
        blocks: Use these blocks, in order of evaluation, instead of looking for some.

    Raises:
        UnsupportedPolicyError: No block, no sampler, or a class known not to fit.
    """
    if not isinstance(policy, nn.Module):
        raise UnsupportedPolicyError(f"policy: must be an nn.Module, got {type(policy).__name__}")
    name = type(policy).__name__
    ancestry = [dotted_name(cls) for cls in type(policy).__mro__]
    reason = next((REFUSED[cls] for cls in ancestry if cls in REFUSED), None)
    if reason is not None and not blocks:
        raise UnsupportedPolicyError(
            f"{name}: found no self-attention, cross-attention or feed-forward block to cache. {reason}"
        )
    layout = next((LAYOUTS[cls] for cls in ancestry if cls in LAYOUTS), None)
    denoiser = _at(policy, layout.denoiser) if layout else policy
    found = tuple(blocks) if blocks else torch_adapter.transformer_blocks(denoiser)
    if not found:
        raise UnsupportedPolicyError(
            f"{name}: found no nn.TransformerDecoderLayer in {type(denoiser).__name__}. Name the blocks yourself: "
            "bac.wrap(policy, schedule, blocks=[bac.Block(name, kind, layer, owner, attribute), ...])"
        )
    names = [block.name for block in found]
    if len(set(names)) < len(names):
        raise UnsupportedPolicyError(
            f"blocks: names must be unique, got {max(names, key=names.count)!r} more than once"
        )
    if layout:
        return _known_host(policy, layout, denoiser, found)
    if not isinstance(policy, ActionChunkPolicy):
        raise UnsupportedPolicyError(
            f"{name}: has no reset() and predict_action_chunk(batch), so there is no telling when a denoising run "
            "starts. Give it these two methods; predict_action_chunk must make one whole run"
        )
    return Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=policy,
        sampler_owner=policy,
        sampler_attribute="predict_action_chunk",
        blocks=found,
        batch_dim=torch_adapter.batch_dim(policy),
    )


def _known_host(policy: nn.Module, layout: Layout, denoiser: nn.Module, blocks: tuple[Block, ...]) -> Host:
    owner_path, _, sampler = layout.sampler.rpartition(".")
    num_steps = int(_at(policy, layout.num_steps))
    noise_scheduler = copy.deepcopy(_at(policy, layout.noise_scheduler))
    noise_scheduler.set_timesteps(num_steps)
    return Host(
        policy=policy,
        predict=_at(policy, layout.predict),
        reset=_at(policy, "reset"),
        denoiser=denoiser,
        sampler_owner=_at(policy, owner_path) if owner_path else policy,
        sampler_attribute=sampler,
        blocks=blocks,
        num_steps=num_steps,
        solver=type(noise_scheduler).__name__,
        timesteps=tuple(float(t) for t in noise_scheduler.timesteps),
        batch_dim=torch_adapter.batch_dim(denoiser),
    )


def _at(root: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), root)
