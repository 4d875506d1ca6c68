"""Makes chunks of real-time chunking (RTC) fit for a plan.

RTC hands the sampler what is left of the last chunk, and the number of control steps that the chunk will be late. That
number changes as the robot runs, and a plan holds for one number only. But a guided run reads it in one place: the
weights of the old actions, `RTCProcessor.get_prefix_weights`. So the weights are computed beforehand and handed to the
plan as a tensor; below the replayer they are put in place of the method for the time of the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from bac.adapters.lerobot.names import RTC_OPTIONS, RTC_WEIGHTS
from bac.caching.interceptors.patch import Interceptor

_DELAY, _LEFT_OVER = RTC_OPTIONS
_GIVEN = "bac_prefix_weights"
_METHOD = RTC_WEIGHTS.rpartition(".")[2]


class Guidance(ABC):
    """What RTC adds to the options of a policy's sampler.

    Args:
        policy: One of LeRobot's.
    """

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    @property
    def is_on(self) -> bool:
        """Whether the policy runs under RTC."""
        return bool(getattr(self._config, "enabled", False))

    @property
    def guides(self) -> bool:
        """Whether it then guides chunks."""
        return self.is_on

    @property
    def is_watched(self) -> bool:
        """Whether LeRobot's debug tracker looks at every step, of which a plan has none."""
        return bool(getattr(self._config, "debug", False))

    @abstractmethod
    def knows(self, options: Mapping[str, Any]) -> bool:
        """Whether these are options of a sampler that it can make fit."""

    @abstractmethod
    def fit(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options with which the replayer is called: without what makes no difference to the run.

        Args:
            options: Keyword arguments of the sampler.
        """

    @abstractmethod
    def example(self, options: dict[str, Any], *, device: torch.device) -> dict[str, Any]:
        """Options of a guided chunk, made of those of a first one."""

    @abstractmethod
    def learn(self, options: dict[str, Any], run: Callable[[], Any]) -> bool:
        """Whether guided chunks can be made fit for one plan; `run` makes the one of these options."""

    @abstractmethod
    def below(self) -> Interceptor:
        """What stands directly below the replayer, and gives a run what `fit` took out of its options."""

    @property
    def _config(self) -> Any:
        return getattr(getattr(self.policy, "config", None), "rtc_config", None)


class PrefixWeights(Guidance):
    """Guidance by LeRobot's processor: the old actions pull at every step.

    Args:
        policy: With an `rtc_processor` if RTC is on.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self._span: tuple[int, int] | None = None  # end and total, as `get_prefix_weights` takes them
        self._learned: Any = None  # what they depend on

    def knows(self, options: Mapping[str, Any]) -> bool:
        return _DELAY in options

    def fit(self, options: dict[str, Any]) -> dict[str, Any]:
        if _DELAY not in options:
            return options
        left_over = options.get(_LEFT_OVER)
        if left_over is None or not self.is_on:
            return {**options, _DELAY: 0, _LEFT_OVER: None}
        if self._span is None or self._learned != self._deciding(options):
            return options
        end, total = self._span
        weights = self.policy.rtc_processor.get_prefix_weights(options[_DELAY], end, total)
        return {**options, _DELAY: 0, _GIVEN: weights.to(left_over.device)}

    def example(self, options: dict[str, Any], *, device: torch.device) -> dict[str, Any]:
        rows = self._config.execution_horizon  # to which LeRobot cuts the rest
        columns = self.policy.config.action_feature.shape[0]
        left_over = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)).to(device)
        return {**options, _DELAY: 1, _LEFT_OVER: left_over}

    def learn(self, options: dict[str, Any], run: Callable[[], Any]) -> bool:
        processor, spans = getattr(self.policy, "rtc_processor", None), []
        own = getattr(processor, _METHOD, None)
        if own is None:
            return False

        def watched(start: int, end: int, total: int) -> Tensor:
            spans.append((end, total))
            return cast(Tensor, own(start, end, total))

        with _instead(processor, watched):
            run()
        self._span = spans[0] if len(set(spans)) == 1 else None
        self._learned = self._deciding(options)
        return self._span is not None

    def below(self) -> Interceptor:
        return GivenWeights(self.policy)

    def _deciding(self, options: dict[str, Any]) -> tuple[Any, ...]:
        """What the end of the weights depends on: the old actions' shape, and the execution horizon."""
        return options[_LEFT_OVER].shape, options.get("execution_horizon"), self._config.execution_horizon


class GivenWeights(Interceptor):
    """Stands directly below the replayer, and lets a guided run use the weights among its arguments."""

    role = "guided"

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __call__(self, *args: Any, **options: Any) -> Any:
        weights = options.pop(_GIVEN, None)
        if weights is None:
            return self.original(*args, **options)
        with _instead(self.policy.rtc_processor, lambda *_: weights):
            return self.original(*args, **options)

    def __str__(self) -> str:
        return "uses the weights of the last chunk's actions that come with the call"


class _instead:  # noqa: N801
    """Within the context, `method` computes the processor's weights."""

    def __init__(self, processor: Any, method: Callable[..., Tensor]) -> None:
        self.attributes, self.method = vars(processor), method

    def __enter__(self) -> None:
        self.attributes[_METHOD] = self.method

    def __exit__(self, *_: object) -> None:
        del self.attributes[_METHOD]
