"""Interceptors that mark a run: its begin and end, its evaluations of the denoiser, its contexts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import nn

from bac.caching.interceptors.patch import Interceptor
from bac.caching.interceptors.run import ContinuedRun, DenoisingRun
from bac.errors import RunError

Applies = Callable[[tuple[Any, ...], dict[str, Any]], bool]


def outside_compilers(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, excluded from a caller's `torch.compile`: compiled code bypasses interceptors."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing the compiler takes seconds
        return call
    return cast(Callable[..., Any], torch.compiler.disable(call))  # type: ignore[no-untyped-call]


class Gate(Interceptor):
    """Open while the denoiser is evaluated, for policies that call its blocks at other times too (a prefill).

    Args:
        applies: Picks the calls that are evaluations; `None` picks all.
    """

    def __init__(self, applies: Applies | None = None) -> None:
        self.applies = applies
        self.is_open = False

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.is_open = self.applies is None or self.applies(inputs, options)
        try:
            return self.original(*inputs, **options)
        finally:
            self.is_open = False


class NamedContexts(Interceptor):
    """Intercepts the method that names the current context: ``with model.cache_context("cond")``."""

    def __init__(self, run: DenoisingRun) -> None:
        self.run = run

    def __call__(self, *inputs: Any, **options: Any) -> AbstractContextManager[Any]:
        return self._within(*inputs, **options)

    @contextmanager
    def _within(self, name: str) -> Iterator[Any]:
        with self.original(name) as value:
            self.run.enter_context(name)
            try:
                yield value
            finally:
                self.run.enter_context(None)


class RunScope(Interceptor):
    """Makes one call of a policy's sampler one denoising run.

    Args:
        run: The run.
        denoiser: Must be in eval mode.
        follows: The way to denoise, kept for descriptions of the policy.
    """

    role = "run"

    def __init__(self, run: DenoisingRun, denoiser: nn.Module, follows: object = None) -> None:
        self.run = run
        self.denoiser = denoiser
        self.follows = follows

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self.denoiser.training:
            raise RunError(
                "the policy is in training mode, where dropout differs from step to step; call policy.eval()"
            )
        return outside_compilers(self._one_run)(*inputs, **options)

    def __str__(self) -> str:
        return "begins and ends the denoising run, with an empty cache"

    def _one_run(self, *inputs: Any, **options: Any) -> Any:
        try:
            self.run.begin()
            output = self.original(*inputs, **options)
            self.run.check_complete()
            return output
        finally:
            self.run.end()


class ForgetOnReset(Interceptor):
    """Drops the states that outlive an action chunk when the policy is reset."""

    def __init__(self, run: ContinuedRun) -> None:
        self.run = run

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.run.forget()
        return self.original(*inputs, **options)
