"""Few-step solvers in diffusers' flow-matching pipelines: SD3, Flux, Sana and Wan, with guidance."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.errors import RunError, ScheduleError
from bac.solvers import AdamsBashforth, FlowFitter
from tests.bac.adapters import test_one_stream, test_two_streams
from tests.bac.adapters.pipelines import MARKS, PipelineContract
from tests.contracts_flow import FlowContract, Step, assert_close, denoising

diffusers = pytest.importorskip("diffusers")
pytestmark = MARKS


class PipelineFlowContract(FlowContract):
    """The laws for a loop whose scheduler is swapped and whose velocity is guided.

    The pipeline is asked for four steps, and makes the solver's.
    """

    kit: PipelineContract
    replays = False
    scale = 1000.0  # of the share of noise that the denoiser is told
    guidance = 4.5  # the pipeline's own scale

    def told(self, time: float) -> float:
        return self.scale * time

    def actions(self, sample: Tensor) -> Tensor:
        return sample

    def watch(self, pipe: Any) -> list[Step]:
        """Spy on the denoiser; the velocity of a step is guided by hand."""
        steps: list[Step] = []
        forward = pipe.transformer.forward

        def spied(*inputs: Any, **options: Any) -> Any:
            output = forward(*inputs, **options)
            sample = inputs[0] if inputs else options["hidden_states"]
            self.note(steps, sample.detach().clone(), float(options["timestep"].flatten()[0]), output[0])
            return output

        pipe.transformer.forward = spied
        return steps

    def note(self, steps: list[Step], sample: Tensor, time: float, output: Tensor) -> None:
        """One evaluation, of both contexts: without the prompt, then with it."""
        without, given = output.chunk(2)
        steps.append(Step(sample.chunk(2)[0], time, without + self.guidance * (given - without)))

    def own(self, pipe: Any) -> bac.Denoising:
        """The steps of the call before."""
        return bac.Denoising(solver="Euler", timesteps=find_host(pipe).flow.own_shares(4)[:-1])

    def test_unwrap_leaves_no_trace_of_it(self) -> None:
        pipe = self.kit.make_policy()
        dense = self.predict(pipe)
        parts = [pipe, pipe.scheduler, *pipe.transformer.modules()]
        before, config = [sorted(vars(part)) for part in parts], dict(pipe.config)
        bac.wrap(pipe, denoising(3))
        self.predict(pipe)
        bac.unwrap(pipe)
        assert [sorted(vars(part)) for part in parts] == before and dict(pipe.config) == config
        assert not list(interceptors(pipe))
        assert torch.equal(self.predict(pipe), dense)


class OneByOne(PipelineFlowContract):
    """The contexts are evaluations of their own: with the prompt, then without it."""

    def note(self, steps: list[Step], sample: Tensor, time: float, output: Tensor) -> None:
        if not steps or steps[-1].time != time:
            steps.append(Step(sample, time, output))
        else:
            steps[-1].output = output + self.guidance * (steps[-1].output - output)


class TestSD3(PipelineFlowContract):
    kit = test_two_streams.TestSD3()
    guidance = 7.0


class ShiftedSD3(test_two_streams.TestSD3):
    def make_policy(self) -> Any:
        pipe = super().make_policy()
        pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        return pipe


class TestSD3Shifted(TestSD3):
    kit = ShiftedSD3()


class TestFlux(OneByOne):
    """Its denoiser is told the share of noise itself."""

    kit = test_two_streams.TestFlux()
    scale, guidance = 1.0, 2.0


class DynamicallyShiftedFlux(test_two_streams.TestFlux):
    def make_policy(self) -> Any:
        pipe = super().make_policy()
        pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        return pipe


class TestFluxShiftedByThePicturesSize(TestFlux):
    kit = DynamicallyShiftedFlux()


class TestSana(PipelineFlowContract):
    kit = test_one_stream.TestSana()


class TestWan(OneByOne):
    kit = test_one_stream.TestWan()
    guidance = 5.0


class SecondOrderSana(test_one_stream.TestSana):
    def make_policy(self) -> Any:
        pipe = super().make_policy()
        pipe.scheduler = diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
        return pipe


class TestSanaWithDPMSolver(TestSana):
    """Its own steps are of the second order, so Euler's are others."""

    kit = SecondOrderSana()

    def test_eulers_rows_at_its_own_times_are_the_policy_itself(self) -> None:
        with pytest.raises(ScheduleError, match="only Euler's steps can be fitted to, got DPMSolverMultistep"):
            find_host(self.kit.make_policy()).flow.own_shares(4)


class PredictingCorrectingWan(test_one_stream.TestWan):
    def make_policy(self) -> Any:
        pipe = super().make_policy()
        pipe.scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
        return pipe


class TestWanWithUniPC(TestWan):
    kit = PredictingCorrectingWan()
    test_eulers_rows_at_its_own_times_are_the_policy_itself = None


def test_a_fit_ends_nearer_to_the_flow_than_euler_at_the_same_times():
    kit, times = test_two_streams.TestSD3(), (0.9, 0.4)
    pipe = kit.make_policy()
    fitter = FlowFitter(find_host(pipe), lambda: kit.predict(pipe), 20)
    fit = fitter.fit(times)
    assert fit.error < 0.75 * fitter.at(AdamsBashforth(1), times).error
    bac.wrap(pipe, bac.Denoising(fit.solver, times))
    assert torch.isfinite(kit.predict(pipe)).all()


def test_the_own_steps_of_a_call_are_fitted_to_after_that_call():
    kit = DynamicallyShiftedFlux()
    pipe = kit.make_policy()
    with pytest.raises(ScheduleError, match=r"depend on the call.*num_inference_steps=4\)"):
        FlowFitter(find_host(pipe), lambda: kit.predict(pipe), 4, own=True)
    dense = kit.predict(pipe)
    assert_close(FlowFitter(find_host(pipe), lambda: kit.predict(pipe), 4, own=True)._reference.last, dense)


def test_the_solvers_number_of_steps_replaces_the_calls_and_that_is_said(caplog):
    kit = test_one_stream.TestSana()
    pipe = bac.wrap(kit.make_policy(), denoising(3))
    with caplog.at_level(logging.INFO, "bac"):
        kit.predict(pipe)
    assert pipe.num_timesteps == 3
    assert "4 denoising steps asked for; the solver makes its 3" in caplog.text
    assert "fitted multistep at 0.83, 0.37, 0.061; swaps in for the call: scheduler" in str(bac.describe(pipe))


def test_a_run_from_a_picture_is_refused_and_the_scheduler_is_back():
    pipe = test_two_streams.TestSD3().make_policy()
    own = pipe.scheduler
    bac.wrap(pipe, denoising(3))

    def begins_later(*_: Any, **__: Any) -> None:
        pipe.scheduler.set_begin_index(2)

    pipe.prepare_latents = begins_later
    with pytest.raises(RunError, match="starts from pure noise, got one that starts at 2"):
        test_two_streams.TestSD3().predict(pipe)
    assert pipe.scheduler is own


def test_a_scheduler_of_diffusion_takes_none():
    pipe = test_one_stream.TestPixArt().make_policy()
    with pytest.raises(ScheduleError, match="PixArtAlphaPipeline has a solver of its own that cannot be replaced"):
        bac.wrap(pipe, denoising(3))
