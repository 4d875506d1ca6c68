"""A multistep solver within a flow-matching loop that it neither edits nor replaces: the effective velocity.

The denoiser is told a time of the solver's, and answers with a velocity v. At a share of noise t that gives what the
five terms of `bac.solvers.multistep` need (with v = noise - clean)::

    clean = x - t v        noise = x + (1 - t) v        x_next = row . (clean, noise, x, clean before, noise before)

The loop will add its own step to the sample, so it is answered (x_next - x) / step, which takes it to x_next. All of
this is computed in float32, whatever the sample's dtype, and rounded once. Steps are counted from the sampler's entry;
no number is read off a tensor, which would synchronise a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bac.adapters.flow import Flow
from bac.errors import RunError, ScheduleError
from bac.solvers.multistep import Coefficients


class FlowRun:
    """The solver's state in the current run of one policy's sampler; a `bac.adapters.flow.Stage`.

    Args:
        flow: The sampler.
        times: Shares of noise, `[K]`, decreasing, in (0, 1].
        rows: Coefficients of every step.

    Attributes:
        noise: The shares of noise at the times that the denoiser is told, `[K]`; buckets round.
        times: Those times as the policy counts them.
        sign: 1 if the policy's velocity is noise - action, -1 if it is action - noise.
        widths: Noise that each step takes off, `[K]`.
        guided: Velocities are guided before they are solved with, so a place answers with the denoiser's own.

    Raises:
        ScheduleError: A time is not in (0, 1], or two are told as the same.
    """

    def __init__(self, flow: Flow, times: Sequence[float], rows: Sequence[Coefficients]) -> None:
        _check(times)
        self.times = tuple(map(flow.told, times))
        self.noise = tuple(map(flow.noise, self.times))
        if len(set(self.times)) < len(times):
            raise ScheduleError(
                f"timesteps: two are the same to the denoiser, which knows {flow.buckets} times, got {tuple(times)}"
            )
        self.rows = tuple(rows)
        self.widths = tuple(here - after for here, after in zip(times, (*times[1:], 0.0), strict=True))
        own = () if flow.steppers else flow.own_times(len(times))  # a stepper has no other step than the solver's
        self._steps = tuple(after - here for here, after in zip(own, own[1:], strict=False))
        self._own = () if flow.steppers else flow.own_shares(len(times))
        self.sign = -1.0 if flow.rising else 1.0
        self._clean, self._as_predicted = flow.clean, list(flow.as_predicted)
        self.guided = False
        self.thread: int | None = None
        self.begin()
        self.end()

    def begin(self) -> None:
        """Enter a run: the sampler was called."""
        self.thread = threading.get_ident()
        self._step = 0
        self._sample: Tensor | None = None
        self._first: Tensor | None = None
        self._before: tuple[Tensor, ...] = ()

    def end(self) -> None:
        """Leave the run and keep nothing of it."""
        self.thread = None
        self._sample = self._first = None
        self._before = ()

    def check_complete(self) -> None:
        """Refuse a run that made fewer steps than the solver has.

        Raises:
            RunError: It did.
        """
        if self._step != len(self.rows):
            raise RunError(
                f"a denoising run made {self._step} steps and the solver is for {len(self.rows)}; the action chunk was "
                "discarded. Set the policy back to its own way in (predict_action_chunk), or tune again"
            )

    @property
    def step(self) -> int:
        """The current step.

        Raises:
            RunError: All steps are made.
        """
        if self._step >= len(self.rows):
            raise RunError(
                f"a denoising run makes more than the {len(self.rows)} steps that the solver is for; the action chunk "
                "was discarded. Set the policy back to its own way in (predict_action_chunk), or tune again"
            )
        return self._step

    @property
    def time(self) -> float:
        """See `bac.adapters.flow.Stage`."""
        return self.times[self.step]

    def see(self, sample: Tensor) -> None:
        """See `bac.adapters.flow.Stage`."""
        self._sample = sample
        if self._first is None:
            self._first = self._sample

    def answer(self, output: Tensor) -> Tensor:
        """See `bac.adapters.flow.Stage`."""
        if self.guided:
            return output
        if self._sample is None:
            raise RunError(
                "the denoiser answered before the solver saw its sample; name the call that takes it: "
                "bac.adapters.flow.place(owner, attribute, sample=...)"
            )
        given = _arranged(output, self._sample)
        answer = self._clean_answer(given) if self._clean else self.velocity(self._sample, given)
        return _put_back(output, answer)

    def velocity(self, sample: Tensor, velocity: Tensor, committed: Tensor | None = None) -> Tensor:
        """End the step: the velocity with which the loop's own step goes where the solver goes.

        Args:
            sample: As the sampler has it.
            velocity: The policy's, or guided.
            committed: See `advance`.
        """
        step = self._steps[self.step]
        after = self.advance(sample, velocity, committed)
        return ((after - sample) / step).to(velocity.dtype)

    def advance(self, sample: Tensor, velocity: Tensor, committed: Tensor | None = None) -> Tensor:
        """End the step: the next sample, in float32 at least.

        Args:
            sample: As the sampler has it.
            velocity: The policy's, or guided.
            committed: Share of Euler's step in the result, in [0, 1], `[T, 1]`; None for none.
        """
        noise, width, x = self.noise[self.step], self.widths[self.step], _precise(sample)
        v = self.sign * _precise(velocity)
        after = self._next(x - noise * v, x + (1.0 - noise) * v, x)
        return after if committed is None else torch.lerp(after, x - width * v, committed.to(x))

    def _clean_answer(self, predicted: Tensor) -> Tensor:
        """End the step: what the loop takes for clean, so that mixing it with the first sample gives the next one."""
        assert self._sample is not None and self._first is not None
        noise, clean, x = self.noise[self.step], _precise(predicted), _precise(self._sample)
        after = self._next(clean, (x - (1.0 - noise) * clean) / noise, x)
        share = self._own[self._step]  # of the first sample, in the loop's next mixture
        answer = (after - share * _precise(self._first)) / (1.0 - share)
        if self._as_predicted:
            answer[..., self._as_predicted] = clean[..., self._as_predicted]
        return answer.to(predicted.dtype)

    def _next(self, clean: Tensor, noise: Tensor, sample: Tensor) -> Tensor:
        after = self.combine((clean, noise, sample, *self._before))
        self._before = clean, noise
        self._step += 1
        return after

    def combine(self, terms: Sequence[Tensor]) -> Tensor:
        """The weighted sum of this step's terms."""
        first, *others = self.rows[self._step]
        total = terms[0] * first
        for term, weight in zip(terms[1:], others, strict=True):
            total = torch.add(total, term, alpha=weight)
        return total

    @contextmanager
    def unanswered(self) -> Iterator[None]:
        """Within the context, places tell the time and answer with the denoiser's own velocity."""
        self.guided = True
        try:
            yield
        finally:
            self.guided = False


def _check(times: Sequence[float]) -> None:
    if not times or any(not 0.0 < time <= 1.0 for time in times):
        raise ScheduleError(
            "timesteps: on a flow-matching policy they are shares of noise in (0, 1], decreasing, such as (0.8, 0.2, "
            f"0.05); the last step ends at 0, where a denoiser was never trained, got {tuple(times)}"
        )


def _precise(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _arranged(output: Tensor, sample: Tensor) -> Tensor:
    """A denoiser's output in the sample's shape: as it is, unflattened, or the last rows of a longer sequence."""
    if output.numel() == sample.numel():
        return output.reshape(sample.shape)
    return output[:, -sample.shape[1] :]


def _put_back(output: Tensor, answer: Tensor) -> Tensor:
    """Inverse of `_arranged`: the output with the answer in its place."""
    if output.numel() == answer.numel():
        return answer.reshape(output.shape)
    return torch.cat([output[:, : -answer.shape[1]], answer], dim=1)
