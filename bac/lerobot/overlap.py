"""Makes guided chunks of `groot` fit for a plan.

GR00T has real-time chunking of its own: a chunk begins as the rest of the last one in its first rows and as noise in
the others, and each row has a strength, by which every step is multiplied. How many rows, and how strong, are numbers
that change as the robot runs, and a plan holds for one of each. But a run uses them only before its first step. So
LeRobot's own code makes beginning and strength beforehand, and hands them to the plan as tensors; below the replayer
they are put in place of the run's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bac.adapters.lerobot.names import GROOT_ENCODER, GROOT_NUMBERS, GROOT_OPTIONS, GROOT_UNGUIDED
from bac.caching.interceptors.patch import Interceptor
from bac.lerobot.guidance import Guidance

_BATCH, _OLD, _NUMBERS = GROOT_OPTIONS
_OVERLAP = GROOT_NUMBERS[1]
_GIVEN = "bac_beginning"
_RATE = 6.0  # of N1.7; any other is as good for an example


class Overlap(Guidance):
    """Guided chunks that begin with the rest of the last one.

    Args:
        policy: LeRobot's `groot`.
        head: Its action head.
        sampler: Name of the head's method that makes a denoising run.
    """

    def __init__(self, policy: Any, head: Any, sampler: str) -> None:
        super().__init__(policy)
        self._head = head
        self._sampler: Callable[..., Any] = getattr(type(head), sampler)
        self._is_learned = False

    @property
    def guides(self) -> bool:
        return self.is_on and not getattr(self.policy.config, GROOT_UNGUIDED, False)

    def knows(self, options: Mapping[str, Any]) -> bool:
        return _BATCH in options and _NUMBERS in options

    def fit(self, options: dict[str, Any]) -> dict[str, Any]:
        batch, numbers = options.get(_BATCH), options.get(_NUMBERS)
        if not self._is_learned or numbers is None or batch is None or _OLD not in batch:
            return options
        given, plain = self._given(options), copy.copy(batch)
        del plain[_OLD]
        return {**options, _BATCH: plain, _NUMBERS: None, _GIVEN: given}

    def example(self, options: dict[str, Any], *, device: torch.device) -> dict[str, Any]:
        batch = copy.copy(options[_BATCH])
        rows = min(self._config.execution_horizon, self._head.config.action_horizon)
        sizes = (len(batch["state"]), rows, self._head.action_dim)
        batch[_OLD] = torch.rand(sizes, generator=torch.Generator().manual_seed(0)).to(batch["state"])
        numbers = dict(zip(GROOT_NUMBERS, (rows, rows, 1, _RATE), strict=True))
        return {**options, _BATCH: batch, _NUMBERS: numbers}

    def learn(self, options: dict[str, Any], run: Callable[[], Any]) -> bool:
        self._is_learned = self._given(options) is not None
        return self._is_learned

    def below(self) -> Interceptor:
        return GivenBeginning()

    def _given(self, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor] | None:
        """Which rows are old, `[T, 1]`; actions before the first step, old ones and zeros; and strength: `[B, T, Da]`.

        None if the run does not begin as `bac` knows it.
        """
        first, attributes = _First(begin=lambda _, *sizes, **options: torch.zeros(*sizes, **options)), vars(self._head)

        def stop(*_: Any) -> None:
            raise _Begun

        attributes[GROOT_ENCODER] = stop
        try:
            with first:
                self._sampler(self._head, **options)
        except _Begun:
            pass
        finally:
            del attributes[GROOT_ENCODER]
        if first.actions is None or first.strength is None:
            return None
        rows = torch.arange(first.actions.shape[1], device=first.actions.device)
        return (rows < options[_NUMBERS][_OVERLAP])[:, None], first.actions, first.strength


class GivenBeginning(Interceptor):
    """Stands directly below the replayer, and lets a guided run begin with the tensors among its arguments."""

    role = "guided"

    def __call__(self, *args: Any, **options: Any) -> Any:
        given = options.pop(_GIVEN, None)
        if given is None:
            return self.original(*args, **options)
        is_old, old, strength = given
        with _First(lambda randn, *sizes, **options: old.where(is_old, randn(*sizes, **options)), strength):
            return self.original(*args, **options)

    def __str__(self) -> str:
        return "begins with the last chunk's actions that come with the call"


class _First(TorchFunctionMode):
    """Within the context, a run gets other tensors in place of its noise and of the ones that become its strength.

    Args:
        begin: Makes the noise: gets ``torch.randn`` and its arguments.
        strength: The strength; None to let the run make its own.

    Attributes:
        actions: What `begin` made, and the run wrote into.
        strength: The same of the strength.
    """

    def __init__(self, begin: Callable[..., Tensor], strength: Tensor | None = None) -> None:
        super().__init__()
        self._begin = begin
        self.actions: Tensor | None = None
        self.strength = strength

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is torch.randn and self.actions is None:
            self.actions = self._begin(func, *args, **options)
            return self.actions
        if func is torch.ones_like and args[0] is self.actions:
            if self.strength is None:
                self.strength = func(*args, **options)
            return self.strength
        return func(*args, **options)


class _Begun(Exception):  # noqa: N818
    """The run is at its first step. Never leaves this module."""
