"""The description of a flow-matching sampler: where sample, time and velocity pass in its loop.

A flow-matching policy writes its integration loop out: it calls the denoiser with a sample and a time, gets a velocity,
and adds a step of it to the sample. Nothing of that loop can be replaced, but everything it hands over passes through
calls that can be intercepted. Such a call is a `Place`. A solver that stands on the places reads the sample, tells the
denoiser another time, and answers with the velocity that takes the loop's own step to where the solver goes.

Noise is measured as its share in the sample: 1 is pure noise, 0 a clean action, whichever way the policy counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from bac.caching.block import Site
from bac.errors import ScheduleError

Arguments = tuple[Any, ...]


class Stage(Protocol):
    """The current denoising step, as a place sees it.

    Attributes:
        times: The times of all steps as the policy counts them, `[K]`: shares of noise, shares of the clean action
            (`Flow.rising`), or buckets of those (`Flow.buckets`).
        time: The time of this step.
    """

    times: tuple[float, ...]

    @property
    def time(self) -> float: ...

    def see(self, sample: Tensor) -> None:
        """Take note of the sample of this step."""

    def answer(self, output: Tensor) -> Tensor:
        """End the step: the answer to the loop in place of the denoiser's output, in the output's shape."""

    def advance(self, sample: Tensor, velocity: Tensor) -> Tensor:
        """End the step: the next sample, for samplers whose steps are a call of their own."""


class Passes(Protocol):
    """Calls the original of a place with what the solver changes in arguments and result."""

    def __call__(self, stage: Stage, original: Callable[..., Any], inputs: Arguments, options: dict[str, Any]) -> Any:
        """Stand in for one call."""


@dataclass(frozen=True, eq=False)
class Place:
    """A call within a denoising step through which sample, time or velocity pass.

    Attributes:
        site: The call.
        passes: What is done with it.
    """

    site: Site
    passes: Passes

    def check(self) -> None:
        """Refuse a call that is not as described: of another version of the policy, say.

        Raises:
            ScheduleError: There is no such call, or it lacks a parameter.
        """
        name = f"{type(self.site.owner).__name__}.{self.site.attribute}"
        if not callable(getattr(self.site.owner, self.site.attribute, None)):
            raise ScheduleError(f"{name}: there is no such method, through which sample or time could pass")
        if isinstance(self.passes, Through):
            for wanted in filter(None, (self.passes.sample, self.passes.time)):
                if wanted not in self.passes.names:
                    raise ScheduleError(f"{name}: has no parameter {wanted!r}; it has {', '.join(self.passes.names)}")


@dataclass(frozen=True)
class Through:
    """The usual place: some of its arguments are sample and time, and its result may be the velocity.

    Attributes:
        names: Names of the call's parameters, in order.
        sample: Name of the parameter that takes the sample, `[B, T, Da]`; empty if it is seen elsewhere.
        time: Name of the parameter that takes the time, a tensor; empty if it is told elsewhere.
        answers: The result is the velocity (or the clean sample, if the flow predicts that): `[B, T, Da]`, flattened,
            or the last T rows of a longer sequence.
    """

    names: tuple[str, ...]
    sample: str = ""
    time: str = ""
    answers: bool = False

    def __call__(self, stage: Stage, original: Callable[..., Any], inputs: Arguments, options: dict[str, Any]) -> Any:
        """Read the sample, replace the time, call, and replace the velocity."""
        values = dict(zip(self.names, inputs, strict=False)) | options
        if self.sample:
            stage.see(values[self.sample])
        if self.time:
            told = values[self.time].new_full(values[self.time].shape, stage.time)
            inputs, options = _with(self.names.index(self.time), self.time, told, inputs, options)
        output = original(*inputs, **options)
        return stage.answer(output) if self.answers else output


def _with(index: int, name: str, value: Any, inputs: Arguments, options: dict[str, Any]) -> tuple[Arguments, Any]:
    """The same arguments with one replaced, however it was given."""
    if name in options:
        return inputs, {**options, name: value}
    return (*inputs[:index], value, *inputs[index + 1 :]), options


def place(owner: Any, attribute: str = "forward", *, sample: str = "", time: str = "", answers: bool = False) -> Place:
    """The usual place; see `Through`. Whether the call has such parameters is asked when a solver is put on it."""
    # From the class, because an interceptor on the owner has another signature.
    called = getattr(type(owner), attribute, None)
    names = () if called is None else tuple(inspect.signature(called).parameters)[1:]
    return Place(Site(owner, attribute), Through(names, sample, time, answers))


@dataclass(frozen=True, eq=False)
class Stepper:
    """A scheduler object of the policy's own, for whose attribute another is swapped in during a run.

    Attributes:
        owner: Object that holds it.
        attribute: Its name there.
        make: Makes the one to swap in.
    """

    owner: Any
    attribute: str
    make: Callable[[Stage], Any]


@dataclass(frozen=True, eq=False)
class Flow:
    """How a flow-matching sampler hands over sample, time and velocity.

    The loop computes ``sample + step * velocity``, with the step of an even grid unless `grid` says otherwise. Its
    velocity is the derivative by its own time: noise - action if the time falls, action - noise if it rises.

    Attributes:
        places: Calls of a step, in any order. One of them answers.
        rising: Time is the share of the clean action, from 0 to 1; otherwise the share of noise, from 1 to 0.
        buckets: The denoiser takes whole numbers: the time times `buckets`, rounded down. None: the time itself.
        clean: The denoiser predicts the clean action. The loop then mixes the first sample and the answer at its next
            time, as X-VLA does.
        as_predicted: Channels of the action that a clean prediction gives on another scale than the sample (logits of a
            gripper). They are passed on as predicted last.
        grid: Maps K to the loop's own times, `[K + 1]`, if they are not even. With `steppers`, only a fit to the
            policy's own steps asks for them.
        steppers: Scheduler objects that make the steps instead of `places`.
        guidance: Object and attribute that hold LeRobot's processor of real-time chunking, if the loop has one.
        guidance_argument: Keyword argument that hands that processor to the sampler instead.
        num_extra: Evaluations of a run after the last step.
        num_steps_at: Object and attribute from which the sampler reads K anew in every run; for a policy that no
            adapter knows.
    """

    places: tuple[Place, ...] = ()
    rising: bool = False
    buckets: int | None = None
    clean: bool = False
    as_predicted: tuple[int, ...] = ()
    grid: Callable[[int], Sequence[float]] | None = None
    steppers: tuple[Stepper, ...] = ()
    guidance: tuple[Any, str] | None = None
    guidance_argument: str = ""
    num_extra: int = 0
    num_steps_at: tuple[Any, str] | None = None

    def told(self, noise: float) -> float:
        """The time that the denoiser is told, as the policy counts it, at a share of noise."""
        time = 1.0 - noise if self.rising else noise
        # Rounded down as the policies do; the small number keeps 1 - 0.8 from falling below its bucket.
        return time if self.buckets is None else int(time * self.buckets + 1e-6)

    def noise(self, told: float) -> float:
        """The share of noise at a time that was told: inverse of `told`, but for the rounding into buckets."""
        time = told if self.buckets is None else told / self.buckets
        return 1.0 - time if self.rising else time

    def own_times(self, num_steps: int) -> tuple[float, ...]:
        """The loop's own times with so many steps, `[K + 1]`."""
        if self.grid is not None:
            return tuple(self.grid(num_steps))
        even = tuple(step / num_steps for step in range(num_steps + 1))
        return even if self.rising else tuple(1.0 - time for time in even)

    def own_shares(self, num_steps: int) -> tuple[float, ...]:
        """The loop's own times as shares of noise, `[K + 1]`, from 1 to 0."""
        own = self.own_times(num_steps)
        return tuple(1.0 - time for time in own) if self.rising else own
