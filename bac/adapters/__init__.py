"""Adapters find a policy's denoiser, its blocks, and the method that makes a denoising run.

A table maps each known policy class, by dotted name, to the function that takes it apart; sub-classes inherit the row.
Any other policy is accepted if it holds PyTorch's own transformer layers or a known model of diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import nn

from bac.adapters import diffusers, diffusion_policy, lerobot
from bac.adapters import torch as torch_adapter
from bac.adapters.flow import Flow
from bac.adapters.host import Host, dotted_name
from bac.caching.block import Block
from bac.caching.interceptors.patch import interceptors
from bac.errors import UnsupportedPolicyError

ADAPTERS = {**diffusion_policy.ADAPTERS, **lerobot.ADAPTERS, diffusers.PIPELINE: diffusers.host}


@runtime_checkable
class ActionChunkPolicy(Protocol):
    """The part of LeRobot's policy interface that `bac` uses."""

    def reset(self) -> Any:
        """Forget the episode."""

    def predict_action_chunk(self, batch: Any) -> Any:
        """Observations to action chunk: one denoising run."""


def find_host(policy: Any, blocks: Sequence[Block] | None = None, flow: Flow | None = None) -> Host:
    """Take a policy apart.

    Args:
        policy: An `nn.Module`: one of the classes in `ADAPTERS`, or any other with `reset` and
            `predict_action_chunk` that holds PyTorch transformer layers or a model of diffusers. Or a pipeline of
            diffusers.
        blocks: Use these blocks, in order of evaluation, instead of looking for some.
        flow: Where sample, time and velocity pass in a flow-matching sampler that no adapter knows. Such a policy needs
            no blocks.

    Raises:
        UnsupportedPolicyError: No block or no sampler was found, or the class is known not to fit.
    """
    if hasattr(policy, "_orig_mod"):  # torch.compile's mark
        raise UnsupportedPolicyError(
            "policy: is compiled by torch.compile, and compiled code bypasses bac; wrap the policy itself: "
            "bac.wrap(policy._orig_mod)"
        )
    ancestry = [dotted_name(cls) for cls in type(policy).__mro__]
    reason = next((lerobot.REFUSED[cls] for cls in ancestry if cls in lerobot.REFUSED), None)
    if reason is not None and not blocks:  # a user may name blocks all the same
        raise UnsupportedPolicyError(
            f"{type(policy).__name__}: found no self-attention, cross-attention or feed-forward block to cache. "
            f"{reason} Take instead one of LeRobot's {', '.join(lerobot.NAMES)}, or policies.diffusion_transformer"
        )
    adapter = next((ADAPTERS[cls] for cls in ancestry if cls in ADAPTERS), None)
    if not isinstance(policy, nn.Module) and adapter is None:
        raise UnsupportedPolicyError(
            f"policy: must be an nn.Module or a pipeline of diffusers, got {type(policy).__name__}"
        )
    host = adapter(policy) if adapter else _unknown_host(policy, blocks, flow)
    if blocks:
        host = replace(host, blocks=tuple(blocks))
    if flow is not None:
        owner, name = at = flow.num_steps_at or host.num_steps_at or (None, "")
        known = host.num_steps if owner is None else int(getattr(owner, name))
        host = replace(host, flow=flow, num_steps=known, num_steps_at=None if owner is None else at)
    names = [block.name for block in host.blocks]
    if len(set(names)) < len(names):
        raise UnsupportedPolicyError(
            f"blocks: names must be unique, got {max(names, key=names.count)!r} more than once"
        )
    return host


def _unknown_host(policy: nn.Module, blocks: Sequence[Block] | None, flow: Flow | None) -> Host:
    name = type(policy).__name__
    found = tuple(blocks or torch_adapter.transformer_blocks(policy) or diffusers.blocks_within(policy))
    described = flow is not None or any(True for _ in interceptors(policy))  # the latter was, when it was wrapped
    if not found and not described:
        raise UnsupportedPolicyError(
            f"{name}: found no nn.TransformerDecoderLayer and no known model of diffusers in it. Name the blocks "
            "yourself: bac.wrap(policy, schedule, blocks=[bac.Block(name, kind, layer, owner, attribute), ...])"
        )
    if not isinstance(policy, ActionChunkPolicy):
        raise UnsupportedPolicyError(
            f"{name}: has no reset() and predict_action_chunk(batch), so the start of a denoising run is unknown. "
            "Give it these two methods; predict_action_chunk must make one whole run. If diffusers has a "
            "pipeline around it, wrap that: bac.wrap(pipe, schedule)"
        )
    host = Host(
        policy=policy,
        predict=policy.predict_action_chunk,
        reset=policy.reset,
        denoiser=policy,
        sampler_owner=policy,
        sampler_attribute="predict_action_chunk",
        blocks=found,
        batch_dim=torch_adapter.batch_dim(policy),
    )
    return diffusion_policy.with_noise_scheduler(host) if diffusion_policy.samples_itself(policy) else host
