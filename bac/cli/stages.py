"""Tells where the milliseconds of an untouched action chunk go.

A stopwatch runs on calls that every denoising policy has: the chunk, its sampler, an evaluation of the denoiser, a
block. Each moment counts for one stage alone, the innermost that is running. What looks at pictures or reads words is
told from the names of modules, and only outside of the evaluations. On a GPU each start and stop waits for it, so the
stages add up to more than a chunk takes undisturbed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from bac.adapters import find_host
from bac.adapters.host import Host
from bac.caching.block import Site
from bac.caching.interceptors.patch import Interceptor, put_on, take_off

AROUND, ONCE, VISION, LANGUAGE = "around the sampler", "once a chunk, other", "vision", "language"
BLOCKS, STEP, SOLVER = "steps: blocks", "steps: around the blocks", "solver, between steps"
STAGES = (AROUND, VISION, LANGUAGE, ONCE, BLOCKS, STEP, SOLVER)

_NAMES = {
    VISION: re.compile(r"vision|visual|rgb|image|vae|siglip", re.IGNORECASE),
    LANGUAGE: re.compile(r"text|lang|word|embed_tokens|tokenizer", re.IGNORECASE),
}
_WARM_UP = 2


class Stopwatch:
    """Adds up the time of stages. `totals`: seconds by stage [s]. `evaluations`: calls of the denoiser."""

    def __init__(self, device: torch.device) -> None:
        self.totals: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.evaluations = 0
        self._device = device
        self._running: list[str] = []
        self._since = 0.0

    @property
    def stage(self) -> str | None:
        """The innermost stage that is running."""
        return self._running[-1] if self._running else None

    @contextmanager
    def running(self, stage: str) -> Iterator[None]:
        """Within the context, count for a stage."""
        self._count()
        self._running.append(stage)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within the context, count for an evaluation of the denoiser."""
        with self.running(STEP):
            yield
        self.evaluations += 1
        self.begin_loop()

    def begin_loop(self) -> None:
        """From now on, what the sampler does by itself is the solver's."""
        self._running = [SOLVER if stage == ONCE else stage for stage in self._running]

    def _count(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._running:
            self.totals[self._running[-1]] += now - self._since
        self._since = now


class _Timed(Interceptor):
    """Lets `stage` decide for what a call counts; None leaves it to whatever is running."""

    role = "timed"

    def __init__(self, watch: Callable[..., Any]) -> None:
        self.watch = watch

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        with self.watch(inputs, options):
            return self.original(*inputs, **options)


def stages(host: Host, batch: Mapping[str, Any], rounds: int) -> dict[str, float]:
    """Median time of each stage of a chunk [s]. Stages that a policy does not show are zero.

    Args:
        host: An untouched policy.
        batch: An observation batch, preprocessed.
        rounds: Chunks to time.
    """
    with torch.no_grad():
        site = _evaluation(host, batch)
        for _ in range(_WARM_UP - 1):
            host.predict(dict(batch))
        watches = [_watched(host, site, batch) for _ in range(rounds)]
    return {stage: median(watch.totals[stage] for watch in watches) for stage in STAGES}


def _evaluation(host: Host, batch: Mapping[str, Any]) -> Site | None:
    """The call that is one evaluation; None if there is none, so that only blocks can be told from the rest."""
    site = host.evaluation or Site(host.denoiser)
    watch = _watched(host, site, batch)
    expected = (host.num_steps or 0) * host.num_contexts
    return site if watch.evaluations and watch.evaluations % max(expected, 1) == 0 else None


def _watched(host: Host, site: Site | None, batch: Mapping[str, Any]) -> Stopwatch:
    watch = Stopwatch(next(host.denoiser.parameters()).device)
    with ExitStack() as stack:
        stack.enter_context(_timed(host.sampler_owner, host.sampler_attribute, lambda *_: watch.running(ONCE)))
        if site is not None:
            stack.enter_context(_timed(site.owner, site.attribute, partial(_of_evaluation, watch, site)))
        for block in host.blocks:
            of_block = partial(_of_block, watch, site is not None)
            stack.enter_context(_timed(block.require_owner(), block.attribute, of_block))
        for stage, module in _named(host.policy):
            stack.enter_context(_hooked(module, watch, stage))
        predict = find_host(host.policy, host.blocks).predict  # anew: it must meet the stopwatch
        with watch.running(AROUND):
            predict(dict(batch))
    return watch


@contextmanager
def _of_evaluation(watch: Stopwatch, site: Site, inputs: tuple[Any, ...], options: dict[str, Any]) -> Iterator[None]:
    if watch.stage == STEP or (site.applies is not None and not site.applies(inputs, options)):
        yield
        return
    with watch.evaluating():
        yield


@contextmanager
def _of_block(watch: Stopwatch, has_site: bool, *_: Any) -> Iterator[None]:
    if watch.stage != STEP and has_site:
        yield  # the same layers read the prompt before the loop
        return
    with watch.running(BLOCKS):
        yield
    if not has_site:  # then the first block begins the loop
        watch.begin_loop()


@contextmanager
def _timed(owner: Any, attribute: str, watch: Callable[..., Any]) -> Iterator[None]:
    put_on(owner, attribute, _Timed(watch))
    try:
        yield
    finally:
        take_off(owner, attribute)


@contextmanager
def _hooked(module: nn.Module, watch: Stopwatch, stage: str) -> Iterator[None]:
    """Let the outermost call of such a module count for its stage, outside of evaluations."""
    entered: list[Any] = []

    def before(*_: Any) -> None:
        context = watch.running(stage) if watch.stage in (AROUND, ONCE) else None
        if context is not None:
            context.__enter__()
        entered.append(context)

    def after(*_: Any) -> None:
        context = entered.pop()
        if context is not None:
            context.__exit__(None, None, None)

    handles = module.register_forward_pre_hook(before), module.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _named(policy: Any) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose path says that they look at pictures, or else read words."""
    for path, module in policy.named_modules():
        found = [stage for stage, pattern in _NAMES.items() if pattern.search(path)]
        if found:
            yield found[0], module
