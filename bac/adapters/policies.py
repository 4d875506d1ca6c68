"""Where known policy classes keep their parts, by dotted class name; their packages are never imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Dotted attribute paths from a policy to its parts.

    Attributes:
        sampler: Method whose call is one denoising run.
        denoiser: Network evaluated at each denoising step.
        noise_scheduler: diffusers' noise scheduler.
        num_steps: Number of inference steps.
        predict: Observations to action chunk.
    """

    sampler: str
    denoiser: str
    noise_scheduler: str
    num_steps: str
    predict: str = "predict_action_chunk"


_COLUMBIA_PACKAGE = "diffusion_policy.policy"
_COLUMBIA = Layout("conditional_sample", "model", "noise_scheduler", "num_inference_steps", "predict_action")

LAYOUTS = {
    "policies.diffusion_transformer.modeling_diffusion_transformer.DiffusionTransformerPolicy": Layout(
        "diffusion.conditional_sample",
        "diffusion.transformer",
        "diffusion.noise_scheduler",
        "diffusion.num_inference_steps",
    ),
    f"{_COLUMBIA_PACKAGE}.diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy": _COLUMBIA,
    f"{_COLUMBIA_PACKAGE}.diffusion_transformer_hybrid_image_policy.DiffusionTransformerHybridImagePolicy": _COLUMBIA,
}

_TAKE_INSTEAD = "Take a transformer policy instead, e.g. policies.diffusion_transformer (DP-T)"

REFUSED = {
    "lerobot.policies.diffusion.modeling_diffusion.DiffusionPolicy": "Its denoiser, DiffusionConditionalUnet1d, is a "
    f"convolutional U-Net. {_TAKE_INSTEAD}",
    "lerobot.policies.act.modeling_act.ACTPolicy": f"It makes an action chunk in one evaluation. {_TAKE_INSTEAD}",
    "lerobot.policies.vqbet.modeling_vqbet.VQBeTPolicy": f"It makes an action chunk in one evaluation. {_TAKE_INSTEAD}",
    "lerobot.policies.tdmpc.modeling_tdmpc.TDMPCPolicy": f"It plans in a latent world model. {_TAKE_INSTEAD}",
    "lerobot.policies.pi0_fast.modeling_pi0_fast.PI0FastPolicy": "It decodes tokens one after the other. "
    f"{_TAKE_INSTEAD}",
}
