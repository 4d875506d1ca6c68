"""The Host: what an adapter finds in a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import nn

from bac.adapters.flow import Flow
from bac.caching.block import Block, Site
from bac.caching.interceptors.once import Hoist
from bac.fingerprint import Fingerprint, trained_noise, weights_hash


@dataclass(frozen=True, eq=False)
class Host:
    """A policy or pipeline, taken apart: its denoiser, its blocks, and the method that makes a denoising run.

    Attributes:
        policy: The whole policy.
        predict: Observations to action chunk; called by calibration.
        reset: Forgets the episode.
        denoiser: The network evaluated once (or once per context) per denoising step.
        sampler_owner: Module whose method `sampler_attribute` is called once per action chunk: one denoising run. A
            pipeline of diffusers is no module; a call of it is the run.
        sampler_attribute: Name of that method.
        blocks: In order of evaluation.
        num_steps: Denoising steps K, if known before a run.
        solver: Class name of the noise scheduler or solver, if known.
        timesteps: Noise levels in order of evaluation, `[K]`, if known.
        noise_scheduler: The policy's noise scheduler of diffusers, if it has one.
        takes_solvers: `sampler_owner` reads its solver, one of diffusers' noise schedulers, and K anew in every run:
            ``noise_scheduler`` and ``num_inference_steps``.
        num_steps_at: Object and attribute from which the sampler reads K anew in every run. Set only if K steps are K
            evaluations and the policy's own solver can space any number of steps.
        num_steps_argument: Instead: keyword argument by which the policy hands K to its sampler.
        num_steps_default: The sampler has a default for that argument, so the policy may leave it out.
        flow: Where sample, time and velocity pass, if the sampler is a flow-matching loop that takes solvers.
        why_no_solver: The reason why the sampler takes no solver, if one is worth telling.
        num_contexts: Evaluations of the denoiser per denoising step, one after the other.
        contexts: The call that names the context of the next evaluations, if the number of contexts may change from
            run to run.
        batch_dim: Dimension of a block's output that counts samples.
        in_place: The policy writes into a block's output, so reuse hands out copies.
        evaluation: The call that is one evaluation of the denoiser, if a run also calls its blocks at other times.
        update_last: Blocks that must update at the last step, because the policy keeps more of it than their output.
        weights: Module that holds every weight a run reads, if `sampler_owner` does not. A replay watches
            `sampler_owner` and this, and nothing else of the policy: what `reset` replaces there changes no run.
        constants: Calls that compute the same at every evaluation of a run; computed once.
        hoists: Parts of calls that compute the same. Computing them once rounds differently, so only ``exact=False``
            uses them.
        uncovered: Work of every step that no block covers, in words.
    """

    policy: Any
    predict: Callable[[Any], Any]
    reset: Callable[[], Any]
    denoiser: nn.Module
    sampler_owner: Any
    sampler_attribute: str
    blocks: tuple[Block, ...]
    num_steps: int | None = None
    solver: str | None = None
    timesteps: tuple[float, ...] = ()
    noise_scheduler: Any = None
    takes_solvers: bool = False
    num_steps_at: tuple[Any, str] | None = None
    num_steps_argument: str | None = None
    num_steps_default: bool = False
    flow: Flow | None = None
    why_no_solver: str = ""
    num_contexts: int = 1
    contexts: Site | None = None
    batch_dim: int = 0
    in_place: bool = False
    evaluation: Site | None = None
    update_last: tuple[str, ...] = ()
    weights: nn.Module | None = None
    constants: tuple[Site, ...] = ()
    hoists: tuple[Hoist, ...] = ()
    uncovered: str = ""

    @property
    def takes_fewer_steps(self) -> bool:
        """Whether the policy's own solver can be given another number of steps."""
        return self.num_steps_at is not None or self.num_steps_argument is not None

    @property
    def can_reset(self) -> bool:
        """Whether the policy has a `reset()`, which forgets the episode."""
        return callable(getattr(self.policy, "reset", None))

    @contextmanager
    def own_randomness(self) -> Iterator[None]:
        """Restore the global random state, and that of the denoiser's GPUs, at the end of a ``with`` block."""
        devices = {p.device for p in self.denoiser.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)):
            yield

    def predict_seeded(self, batch: Any, seed: int) -> Any:
        """Predict one action chunk from seeded noise, between two resets.

        Args:
            batch: As `predict` takes it. A mapping is copied, because policies write into it.
            seed: Seeds the noise. The same seed gives any policy of these shapes the same draws.
        """
        with self.own_randomness(), torch.no_grad():
            torch.manual_seed(seed)
            self.reset()  # no queue of an earlier episode
            chunk = self.predict(dict(batch) if isinstance(batch, Mapping) else batch)
            self.reset()  # and none of this one
        return chunk

    def fingerprint(self) -> Fingerprint:
        """The policy's identity, as a schedule carries it."""
        parameter = next(self.denoiser.parameters(), None)
        return Fingerprint(
            policy=dotted_name(type(self.policy)),
            denoiser=dotted_name(type(self.denoiser)),
            block_names=tuple(block.name for block in self.blocks),
            num_steps=self.num_steps,
            solver=self.solver,
            timesteps=self.timesteps,
            dtype=None if parameter is None else str(parameter.dtype).removeprefix("torch."),
            weights=weights_hash(self.denoiser),
            **({} if self.noise_scheduler is None else trained_noise(self.noise_scheduler)),
        )


def dotted_name(cls: type) -> str:
    """``package.module.Class``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def at(root: Any, path: str) -> Any:
    """The attribute at a dotted path; `root` itself for an empty one."""
    return reduce(getattr, path.split("."), root) if path else root
