"""The noise that all methods share: every chunk of every episode has a generator seeded by a fixed hash."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from bac.adapters import find_host
from policies.noise import starting_noise


def chunk_generator(seed: int, chunk_index: int) -> torch.Generator:
    """The generator of one chunk's noise, seeded by a fixed hash of (seed, chunk_index)."""
    digest = hashlib.sha256(f"bac-eval:{seed}:{chunk_index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def paired_chunk(policy: Any, batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Predict one chunk for every row, `[B, T or Ta, Da]`; row i draws all of its noise from generator i.

    A policy that takes a ``generator`` draws the noise of every step from it, too. Any other gets the noise that the
    denoising run begins with, which is all the noise of a flow.

    Args:
        policy: A policy that `policies.load` returned, wrapped or not.
        batch: Preprocessed observations of B rows.
        generators: B generators, as `chunk_generator` makes them.

    Raises:
        TypeError: The policy takes no generator and is no flow, so the noise of its steps cannot be paired.
    """
    if _takes_generator(type(policy)):
        chunk: torch.Tensor = policy.predict_action_chunk(dict(batch), generator=list(generators))
        return chunk
    length = getattr(policy.config, "chunk_size", None)  # LeRobot's flows have it, its diffusions have a horizon
    if length is None:
        raise TypeError(
            f"{type(policy).__name__}: takes no generator=, so the noise of its steps cannot be the same for two "
            "methods; small_diffusion and small_multi_task_dit here take one"
        )
    shape = length, policy.config.max_action_dim
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    chunk = policy.predict_action_chunk(dict(batch), noise=noise)
    return chunk


@contextmanager
def scaled_noise(policy: Any, scale: float) -> Iterator[None]:
    """Within the context, a flow-matching policy begins with the noise that it is given, times `scale`.

    Raises:
        TypeError: The policy draws noise by itself, too.
    """
    if scale == 1.0:
        yield
        return
    if find_host(policy).flow is None:
        raise TypeError(f"{type(policy).__name__}: draws noise at every step; only that of a flow can be scaled")
    own = policy.predict_action_chunk

    def scaled(
        batch: Mapping[str, Any], noise: torch.Tensor | None = None, generator: Any = None, **options: Any
    ) -> torch.Tensor:
        if noise is None:
            noise = starting_noise(policy.config, len(generator), next(policy.parameters()), generator)
        chunk: torch.Tensor = own(batch, noise=scale * noise, **options)
        return chunk

    policy.predict_action_chunk = scaled
    try:
        yield
    finally:
        del policy.predict_action_chunk


@cache
def _takes_generator(policy_class: Any) -> bool:
    return "generator" in inspect.signature(policy_class.predict_action_chunk).parameters
