"""Pipelines of diffusers: one call is one run. Every family's own pipeline code, on a tiny random model."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bac
from bac.adapters import find_host
from bac.errors import CalibrationError, RunError, ScheduleError, UnsupportedPolicyError
from bac.online import FirstBlock
from bac.patch import interceptors
from bac.recording import record_features
from tests.contracts import AdapterContract, count_calls

diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]

TEXT, TOKENS = 10, 3


def embeddings(batch_size: int, *, tokens: int = TOKENS, size: int = TEXT, seed: int = 0) -> Tensor:
    return torch.randn(batch_size, tokens, size, generator=torch.Generator().manual_seed(seed))


def guided(batch_size: int, **sizes: int) -> dict[str, Tensor]:
    """What a pipeline takes in place of a prompt and of a negative one."""
    prompts = embeddings(batch_size, **sizes), embeddings(batch_size, seed=1, **sizes)
    return {"prompt_embeds": prompts[0], "negative_prompt_embeds": prompts[1]}


def masks(batch_size: int, tokens: int = TOKENS, suffix: str = "") -> dict[str, Tensor]:
    names = ("prompt_attention_mask", "negative_prompt_attention_mask")
    return {name + suffix: torch.ones(batch_size, tokens, dtype=torch.long) for name in names}


class Pixels(nn.Module):
    """Stands where a pipeline has its autoencoder."""

    config = SimpleNamespace(scaling_factor=1.0, scale_factor_temporal=4, scale_factor_spatial=8)

    def decode(self, latents: Tensor) -> Any:
        return SimpleNamespace(sample=latents)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def made(cls: type, **given: Any) -> Any:
    """A pipeline with the components given and none of the others."""
    required = [
        name for name, its in list(inspect.signature(cls.__init__).parameters.items())[1:] if its.default is its.empty
    ]
    return quiet(cls(**{**dict.fromkeys(required), **given}))


class PipelineContract(AdapterContract):
    """The laws of every adapter, for what is no module and has nothing to reset."""

    num_steps = 4
    contexts = 1
    size: dict[str, Any] = {"height": 16, "width": 16, "output_type": "latent"}

    def arguments(self, batch_size: int) -> dict[str, Any]:
        """Of the pipeline's call, without size and number of steps."""
        raise NotImplementedError

    def make_batch(self, batch_size: int) -> dict[str, Any]:
        return {**self.arguments(batch_size), **self.size, "num_inference_steps": self.steps}

    @property
    def steps(self) -> int:
        return getattr(self, "_steps", self.num_steps)

    def set_num_steps(self, policy: Any, num_steps: int) -> None:
        self._steps = num_steps

    def chunk(self, policy: Any, batch: Any) -> Tensor:
        return torch.as_tensor(np.asarray(policy(**batch, return_dict=False)[0]))

    def predict(self, policy: Any, batch_size: int = 3, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        return self.chunk(policy, self.make_batch(batch_size))

    def test_unwrap_leaves_no_trace(self) -> None:
        pipe = self.make_policy()
        dense = self.predict(pipe)
        parts = [pipe, *find_host(pipe).denoiser.modules()]
        before, cls = [dict(vars(part)) for part in parts], type(pipe)
        bac.wrap(pipe, self.staggered(pipe))
        self.predict(pipe)
        assert isinstance(pipe, cls) and type(pipe).__name__ == cls.__name__
        assert bac.unwrap(pipe) is pipe
        assert type(pipe) is cls
        assert [sorted(vars(part)) for part in parts] == [sorted(names) for names in before]
        assert not list(interceptors(pipe))
        assert torch.equal(self.predict(pipe), dense)

    def test_every_block_is_computed_exactly_at_its_update_steps(self) -> None:
        pipe = self.make_policy()
        schedule, counts = self.staggered(pipe), {}
        for block in find_host(pipe).blocks:
            count_calls(block, counts)
        bac.wrap(pipe, schedule)
        self.predict(pipe)
        assert counts == {name: self.contexts * len(steps) for name, steps in schedule.update_steps.items()}

    def test_training_mode_is_refused_where_the_policy_does_not_leave_it_by_itself(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.staggered(pipe))
        find_host(pipe).denoiser.train()
        with pytest.raises(RunError, match=r"policy\.eval\(\)"):
            self.predict(pipe)

    def test_wrapping_works_in_inference_mode_and_with_gradients(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.staggered(pipe))
        expected = self.predict(pipe)
        for mode in (torch.inference_mode(), torch.enable_grad()):
            with mode:
                assert torch.equal(self.predict(pipe), expected)

    def test_features_are_recorded_by_step_with_contexts_as_samples(self) -> None:
        pipe = self.make_policy()
        batched = 2 if self.contexts == 1 else 1
        features = record_features(pipe, self.make_batch(3))
        assert {values.shape[:2] for values in features.values()} == {(4, 3 * self.contexts * batched)}


class TestDiT(PipelineContract):
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
        with pytest.raises(ScheduleError, match='take "interpret"'):
            bac.wrap(pipe, self.everywhere(pipe), executor="replay")
        assert not list(interceptors(pipe))

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


class TestDiTSinglestep(TestDiT):
    """DPM-Solver++ in its singlestep form, whose memory of earlier steps is the solver's own."""

    def make_policy(self) -> Any:
        pipe = super().make_policy()
        pipe.scheduler = diffusers.DPMSolverSinglestepScheduler(solver_order=2, lower_order_final=True)
        return pipe

    def test_a_schedule_is_calibrated_through_the_pipelines_call(self) -> None:
        assert find_host(self.make_policy()).fingerprint().solver == "DPMSolverSinglestepScheduler"


class TestPixArt(PipelineContract):
    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=6,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=12,
            sample_size=2,
            caption_channels=TEXT,
            use_additional_conditions=False,
        )
        solver = diffusers.DPMSolverMultistepScheduler()
        return made(diffusers.PixArtAlphaPipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        none = {"negative_prompt": None, "use_resolution_binning": False}
        return {**guided(batch_size), **masks(batch_size), **none}


class TestSD3(PipelineContract):
    """Attention over both streams at once returns a pair; the last layer lets the text stream end."""

    blocks_per_layer = 4

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.SD3Transformer2DModel(
            sample_size=2,
            patch_size=1,
            in_channels=4,
            num_layers=2,
            attention_head_dim=6,
            num_attention_heads=2,
            joint_attention_dim=TEXT,
            caption_projection_dim=12,
            pooled_projection_dim=5,
            out_channels=4,
            pos_embed_max_size=4,
            dual_attention_layers=(0,),
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.StableDiffusion3Pipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        pooled = guided(batch_size, tokens=1, size=5)
        return guided(batch_size) | {
            "pooled_prompt_embeds": pooled["prompt_embeds"][:, 0],
            "negative_pooled_prompt_embeds": pooled["negative_prompt_embeds"][:, 0],
        }

    def test_blocks_are_named_kinded_and_in_order(self) -> None:
        names = [block.name.removeprefix("transformer_blocks.") for block in find_host(self.make_policy()).blocks]
        assert names == ["0.attn", "0.attn2", "0.ff", "0.ff_context", "1.attn", "1.ff"]


class TestFlux(PipelineContract):
    """Guidance by two calls, which the pipeline names; layers whose two branches share a projection."""

    contexts = 2

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=TEXT,
            pooled_projection_dim=5,
            axes_dims_rope=(2, 2, 4),
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.FluxPipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        pooled = guided(batch_size, tokens=1, size=5)
        return guided(batch_size) | {
            "true_cfg_scale": 2.0 if self.contexts == 2 else 1.0,
            "pooled_prompt_embeds": pooled["prompt_embeds"][:, 0],
            "negative_pooled_prompt_embeds": pooled["negative_prompt_embeds"][:, 0],
        }

    def test_blocks_are_named_kinded_and_in_order(self) -> None:
        blocks = find_host(self.make_policy()).blocks
        assert [(block.name.split("_")[0], block.layer) for block in blocks] == [
            *[("transformer", 0)] * 3,
            ("single", 1),
            ("single", 2),
        ]

    def test_each_context_has_features_of_its_own(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.schedule(pipe, (0,)))
        batch = self.make_batch(2)
        ours = record_features(pipe, batch)["single_transformer_blocks.1.proj_out"]
        bac.unwrap(pipe)
        dense = record_features(pipe, batch)["single_transformer_blocks.1.proj_out"]
        assert torch.equal(ours[3], dense[0])  # both contexts: four samples, each held from its own first step
        assert not torch.equal(ours[3][:2], ours[3][2:])


class TestFluxWithoutGuidance(TestFlux):
    """The same wrapped pipeline may be called in one context."""

    contexts = 1

    def test_features_are_recorded_by_step_with_contexts_as_samples(self) -> None:
        features = record_features(self.make_policy(), self.make_batch(3))
        assert {values.shape[:2] for values in features.values()} == {(4, 3)}

    def test_each_context_has_features_of_its_own(self) -> None:
        pipe = self.make_policy()
        bac.wrap(pipe, self.staggered(pipe))
        alone = self.predict(pipe)
        self.contexts = 2
        self.predict(pipe)
        self.contexts = 1
        assert torch.equal(self.predict(pipe), alone)


class TestSana(PipelineContract):
    """Linear attention; a feed-forward of convolutions."""

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=6,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=6,
            cross_attention_dim=12,
            caption_channels=TEXT,
            sample_size=2,
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.SanaPipeline, transformer=model.eval(), scheduler=solver)

    size = {"height": 64, "width": 64, "output_type": "latent"}

    def arguments(self, batch_size: int) -> dict[str, Any]:
        none = {"negative_prompt": None, "use_resolution_binning": False}
        return {**guided(batch_size), **masks(batch_size), **none}


class TestHunyuanDiT(PipelineContract):
    """Long skip connections between layers, which stay fresh."""

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.HunyuanDiT2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            patch_size=1,
            sample_size=2,
            hidden_size=16,
            num_layers=2,
            mlp_ratio=2.0,
            cross_attention_dim=TEXT,
            cross_attention_dim_t5=8,
            pooled_projection_dim=6,
            text_len=TOKENS,
            text_len_t5=5,
            use_style_cond_and_image_meta_size=False,
        )
        given = {"transformer": model.eval(), "scheduler": diffusers.DDPMScheduler()}
        return made(diffusers.HunyuanDiTPipeline, requires_safety_checker=False, **given)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        second = {f"{key}_2": value for key, value in guided(batch_size, tokens=5, size=8).items()}
        both = {**masks(batch_size), **masks(batch_size, 5, "_2"), "use_resolution_binning": False}
        return {**guided(batch_size), **second, **both}


class TestWan(PipelineContract):
    """Films; guidance by two calls."""

    contexts = 2
    size = {"height": 16, "width": 16, "num_frames": 1, "output_type": "latent"}

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=TEXT,
            freq_dim=8,
            ffn_dim=14,
            num_layers=2,
            rope_max_seq_len=8,
        )
        solver = diffusers.FlowMatchEulerDiscreteScheduler()
        return made(diffusers.WanPipeline, transformer=model.eval(), scheduler=solver)

    def arguments(self, batch_size: int) -> dict[str, Any]:
        return guided(batch_size)

    def test_an_online_rule_decides_for_each_context(self) -> None:
        pipe = self.make_policy()
        dense = self.predict(pipe)
        bac.wrap(pipe, FirstBlock(self.num_steps, threshold=0.0))
        assert torch.equal(self.predict(pipe), dense)

    def test_two_denoisers_in_one_run_are_refused(self) -> None:
        pipe = self.make_policy()
        pipe.transformer_2 = pipe.transformer
        with pytest.raises(UnsupportedPolicyError, match="has two denoisers"):
            find_host(pipe)


class TestUNet(PipelineContract):
    """Latent diffusion: ResNet branches and transformer layers."""

    def make_policy(self) -> Any:
        torch.manual_seed(3)
        model = diffusers.UNet2DConditionModel(
            sample_size=4,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(4, 8),
            layers_per_block=1,
            cross_attention_dim=TEXT,
            attention_head_dim=2,
            norm_num_groups=2,
        )
        given = {"unet": model.eval(), "scheduler": diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)}
        return made(diffusers.StableDiffusionPipeline, requires_safety_checker=False, **given)

    size = {"height": 32, "width": 32, "output_type": "latent"}

    def arguments(self, batch_size: int) -> dict[str, Any]:
        return guided(batch_size)

    def test_blocks_are_named_kinded_and_in_order(self) -> None:
        layers = [".".join(block.name.split(".")[:-1]) for block in find_host(self.make_policy()).blocks]
        assert list(dict.fromkeys(layers)) == [
            "down_blocks.0.resnets.0",
            "down_blocks.0.attentions.0.transformer_blocks.0",
            "down_blocks.1.resnets.0",
            "mid_block.resnets.0",
            "mid_block.attentions.0.transformer_blocks.0",
            "mid_block.resnets.1",
            "up_blocks.0.resnets.0",
            "up_blocks.0.resnets.1",
            "up_blocks.1.resnets.0",
            "up_blocks.1.attentions.0.transformer_blocks.0",
            "up_blocks.1.resnets.1",
            "up_blocks.1.attentions.1.transformer_blocks.0",
        ]

    def test_blocks_are_evaluated_in_the_order_of_their_names(self) -> None:
        pipe, seen = self.make_policy(), []
        for block in find_host(pipe).blocks:
            block.owner.register_forward_hook(lambda *_, name=block.name: seen.append(name))
        self.predict(pipe)
        assert seen[: len(seen) // 4] == [block.name for block in find_host(pipe).blocks]
