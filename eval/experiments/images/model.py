"""The image model: a small DiT in pixel space, in diffusers' own pipeline."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from eval.experiments.images.data import NUM_CLASSES, SIZE
from eval.experiments.images.loop import DenoisingLoop

if TYPE_CHECKING:
    from diffusers import DiTPipeline

CHECKPOINT = Path(__file__).parent / "checkpoint"
FLOW_CHECKPOINT = Path(__file__).parent / "flow_checkpoint"
NUM_TRAIN_TIMESTEPS = 1000


class Pixels(nn.Module):
    """Replaces a pipeline's autoencoder and leaves pictures unchanged."""

    config = SimpleNamespace(scaling_factor=1.0)

    def decode(self, latents: Tensor) -> Any:
        """Return `latents`, `[B, 1, 8, 8]`, as ``.sample``, which the pipeline reads."""
        return SimpleNamespace(sample=latents)


def new_transformer(num_layers: int = 6) -> DiTTransformer2DModel:
    """Make an untrained transformer: layers of width 96 on 16 patches of 2 x 2 pixels."""
    return DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=24,
        in_channels=1,
        out_channels=1,
        num_layers=num_layers,
        sample_size=SIZE,
        patch_size=2,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=NUM_CLASSES,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )


def noise_scheduler() -> DDIMScheduler:
    """The noise scheduler that the model was trained with, which is also its default solver.

    Timesteps are spaced from the last one down, so that every number of steps begins at pure noise.
    """
    return DDIMScheduler(NUM_TRAIN_TIMESTEPS, clip_sample=False, timestep_spacing="trailing")


def load_transformer(checkpoint: Path = CHECKPOINT) -> DiTTransformer2DModel:
    """Load the trained model, in eval mode."""
    return DiTTransformer2DModel.from_pretrained(checkpoint, torch_dtype=torch.float32).eval()


def load_pipeline(checkpoint: Path = CHECKPOINT) -> "DiTPipeline":
    """Load the trained model, ready to sample: ``pipe(class_labels=[3, 1, 4], guidance_scale=1.0)``."""
    return make_pipeline(load_transformer(checkpoint))


def make_loop(transformer: DiTTransformer2DModel, num_inference_steps: int = 50) -> DenoisingLoop:
    """Make the denoising loop of a pipeline around a transformer; `bac` can replay it from a plan."""
    return DenoisingLoop(transformer, noise_scheduler(), num_inference_steps).eval()


def make_pipeline(transformer: DiTTransformer2DModel) -> "DiTPipeline":
    """Make a pipeline around a transformer, without a progress bar."""
    from diffusers import DiTPipeline  # takes seconds to import, and training does not need it

    pipe = DiTPipeline(transformer, Pixels(), noise_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe
