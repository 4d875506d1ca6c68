"""diffusers' DiT: guidance by one batch of both halves; what a pipeline is refused for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.caching.interceptors.patch import interceptors
from bac.errors import CalibrationError, ScheduleError, UnsupportedPolicyError
from tests.bac.adapters.pipelines import MARKS, PipelineContract, Pixels, quiet

diffusers = pytest.importorskip("diffusers")
pytestmark = MARKS


class DiTContract(PipelineContract):
    """Guidance by one batch of both halves."""

    blocks_per_layer = 2
    size = {"output_type": "np"}

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=6,
            in_channels=1,
            out_channels=2,
            num_layers=2,
            sample_size=4,
            num_embeds_ada_norm=1000,
        )
        return quiet(diffusers.DiTPipeline(model.eval(), Pixels(), diffusers.DDIMScheduler()))

    def arguments(self, batch_size: int) -> dict[str, Any]:
        return {"class_labels": [3, 1, 4][:batch_size], "guidance_scale": 4.0}


class TestDiT(DiTContract):
    """Under DDIM; and what is refused of any pipeline."""

    def test_a_schedule_is_calibrated_through_the_pipelines_call(self) -> None:
        pipe = self.make_policy()
        calibration = bac.calibrate(pipe, [self.make_batch(3)], progress=False)
        assert (calibration.num_steps, calibration.num_runs) == (4, 6)
        assert calibration.fingerprint.solver == "DDIMScheduler"
        bac.wrap(pipe, bac.adaptive_schedule(calibration, num_updates=2, num_bubbled=1))
        assert np.isfinite(self.predict(pipe)).all()

    def test_a_single_call_may_go_without_guidance(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.everywhere(pipe))
        images = pipe(class_labels=[1], guidance_scale=1.0, num_inference_steps=4, output_type="np").images
        assert images.shape == (1, 4, 4, 1)

    def test_replay_is_refused_for_a_pipeline(self) -> None:
        pipe = self.make_policy()
        with pytest.raises(
            ScheduleError,
            match="a call of DiTPipeline makes pictures .* so it cannot be replayed. Give a schedule, and replay=False",
        ):
            bac.wrap(pipe, self.everywhere(pipe), replay=bac.Replay())
        assert not list(interceptors(pipe))

    def test_the_three_lines_leave_no_trace_on_a_pipeline(self, tmp_path, caplog) -> None:
        pipe, path = self.make_policy(), tmp_path / "bac.json"
        before, images = dict(vars(pipe)), self.predict(pipe)
        bac.wrap(pipe)
        assert "DiTPipeline: every run is interpreted, because a call of DiTPipeline makes pictures" in caplog.text
        assert np.array_equal(self.predict(pipe), images)
        bac.Denoising(schedule=self.everywhere(pipe)).save(path)
        bac.wrap(pipe, bac.load(path))
        assert np.array_equal(self.predict(pipe), images)
        bac.unwrap(pipe)
        assert vars(pipe) == before and not list(interceptors(pipe))

    def test_calibration_wants_the_arguments_of_the_call(self) -> None:
        with pytest.raises(CalibrationError, match="arguments of DiTPipeline's call"):
            bac.calibrate(self.make_policy(), [[1, 2]], progress=False)

    def test_a_policy_around_a_model_of_diffusers_is_taken(self) -> None:
        class Policy(nn.Module):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.model = model

            def reset(self) -> None:
                pass

            def predict_action_chunk(self, batch: Tensor) -> Tensor:
                return batch

        blocks = find_host(Policy(self.make_policy().transformer)).blocks
        assert [block.name for block in blocks][:2] == ["transformer_blocks.0.attn1", "transformer_blocks.0.ff"]

    def test_a_model_alone_is_refused_with_what_to_wrap(self) -> None:
        with pytest.raises(UnsupportedPolicyError, match=r"bac\.wrap\(pipe, schedule\)"):
            find_host(self.make_policy().transformer)

    def test_an_unknown_denoiser_is_refused(self) -> None:
        pipe = self.make_policy()
        pipe.transformer = nn.Linear(2, 2)
        with pytest.raises(UnsupportedPolicyError, match="must be one of DiTTransformer2DModel, .*got Linear"):
            find_host(pipe)


class TestDiTSinglestep(DiTContract):
    """DPM-Solver++ in its singlestep form, whose memory of earlier steps is the solver's own."""

    def make_policy(self) -> Any:
        pipe = super().make_policy()
        pipe.scheduler = diffusers.DPMSolverSinglestepScheduler(solver_order=2, lower_order_final=True)
        return pipe

    def test_the_solver_is_part_of_the_fingerprint(self) -> None:
        assert find_host(self.make_policy()).fingerprint().solver == "DPMSolverSinglestepScheduler"
