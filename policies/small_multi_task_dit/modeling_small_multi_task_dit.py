"""A small Multi-Task DiT: LeRobot's modules around a small CLIP.

LeRobot's constructors fetch CLIP's halves by name. So each class here has a constructor of its own, which sets what the
inherited methods read, and inherits everything else. LeRobot's samplers draw their noise themselves; the two here also
take it as an argument, so that chunks of two policies can begin with the same noise.
"""

from typing import Any

import torch
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import (
    CLIPTextEncoder,
    CLIPVisionEncoder,
    DiffusionObjective,
    DiffusionTransformer,
    FlowMatchingObjective,
    MultiTaskDiTPolicy,
    ObservationEncoder,
)
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_STATE
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from policies.noise import Generators, starting_noise
from policies.small_multi_task_dit import processor_small_multi_task_dit  # noqa: F401  registers a checkpoint's step
from policies.small_multi_task_dit.configuration_small_multi_task_dit import WORDS_HEADS, SmallMultiTaskDiTConfig
from policies.small_vlm import word_tokenizer


class SmallMultiTaskDiTPolicy(MultiTaskDiTPolicy):
    """Multi-Task DiT (arXiv 2507.05331, as LeRobot has it) with the sizes of its configuration.

    Args:
        config: Options; `config.validate_features` is called first.

    Raises:
        ValueError: The configuration has no sentences, or the pictures are no whole number of patches.
    """

    config_class = SmallMultiTaskDiTConfig
    name = "small_multi_task_dit"

    def __init__(self, config: SmallMultiTaskDiTConfig, **kwargs: object) -> None:
        PreTrainedPolicy.__init__(self, config)  # not MultiTaskDiTPolicy's, which fetches CLIP
        config.validate_features()
        self.config = config
        self.observation_encoder = SmallObservationEncoder(config)
        self.noise_predictor = DiffusionTransformer(config, self.observation_encoder.conditioning_dim)
        objective = Diffusion if config.is_diffusion else FlowMatching
        self.objective = objective(
            config, config.action_feature.shape[0], config.horizon, config.do_mask_loss_for_padding
        )
        self.reset()

    @torch.no_grad()
    def predict_action_chunk(
        self, batch: dict[str, Tensor], noise: Tensor | None = None, generator: Generators | None = None
    ) -> Tensor:
        """Predict the actions to execute, `[B, Ta, Da]`.

        LeRobot's own reads its queues. The policy sees one observation at a time, so those hold no more than `batch`.

        Args:
            batch: States `[B, D]` and pictures `[B, C, H, W]` of every camera, or both `[B, 1, ...]`, and tokens.
            noise: Where the denoising run begins, `[B, T, Da]`; None draws it.
            generator: Draws this and the noise of every step: one, or one for each row. None is PyTorch's own.
        """
        self.eval()
        return self._generate_actions(self._prepare_batch(batch), noise, generator)

    def _generate_actions(
        self, batch: dict[str, Tensor], noise: Tensor | None = None, generator: Generators | None = None
    ) -> Tensor:
        told = self.observation_encoder.encode(batch)
        steps = {"generator": generator} if self.config.is_diffusion else {}
        if not steps and noise is None and generator is not None:  # all that a flow draws
            noise = starting_noise(self.config, len(told), told, generator)
        actions = self.objective.conditional_sample(self.noise_predictor, len(told), told, noise=noise, **steps)
        return actions[:, : self.config.n_action_steps]

    def _prepare_batch(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """LeRobot's own, which wants an axis of time in states; a lone observation, `[B, ...]`, gets one here."""
        batch = super()._prepare_batch(batch)
        lone = batch[OBS_STATE].ndim == 2
        return {**batch, OBS_STATE: batch[OBS_STATE].unsqueeze(1)} if lone else batch


class FlowMatching(FlowMatchingObjective):
    """Flow matching, which takes the noise that a run begins with."""

    def conditional_sample(
        self, model: nn.Module, batch_size: int, conditioning_vec: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Make a denoising run: LeRobot's own, from `noise` `[B, T, Da]` if it is given."""
        if noise is None:
            return super().conditional_sample(model, batch_size, conditioning_vec)
        integrate = self._euler_integrate if self.config.integration_method == "euler" else self._rk4_integrate
        times = torch.linspace(0, 1, self.config.num_integration_steps + 1, device=noise.device)
        return integrate(model, noise, times, conditioning_vec)


class Diffusion(DiffusionObjective):
    """DDPM, or another noise scheduler of diffusers, which takes the noise that a run begins with."""

    def conditional_sample(
        self,
        model: nn.Module,
        batch_size: int,
        conditioning_vec: Tensor,
        noise: Tensor | None = None,
        generator: Generators | None = None,
    ) -> Tensor:
        """Make a denoising run: LeRobot's own, from `noise` `[B, T, Da]` if it is given, with `generator`'s draws."""
        if noise is None and generator is None:
            return super().conditional_sample(model, batch_size, conditioning_vec)
        draws = {} if generator is None else {"generator": generator}
        if noise is None:
            noise = starting_noise(self.config, batch_size, conditioning_vec, **draws)
        sample = noise
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for timestep in self.noise_scheduler.timesteps:
            times = torch.full((batch_size,), timestep, dtype=torch.long, device=noise.device)
            predicted = model(sample, times, conditioning_vec=conditioning_vec)
            sample = self.noise_scheduler.step(predicted, timestep, sample, **draws).prev_sample
        return sample


class SmallObservationEncoder(ObservationEncoder):
    """States, what the cameras see and what the instruction says, one after the other."""

    def __init__(self, config: SmallMultiTaskDiTConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self._setup_preprocessing(config)
        self.camera_names = list(config.image_features)
        self.num_cameras = len(self.camera_names)
        self.vision_encoder = self.vision_encoders = None
        if config.image_features and config.use_separate_rgb_encoder_per_camera:
            self.vision_encoders = nn.ModuleList([SmallVisionEncoder(config) for _ in self.camera_names])
        elif config.image_features:
            self.vision_encoder = SmallVisionEncoder(config)
        self.robot_state_dim = config.robot_state_feature.shape[0]
        self.text_dim = config.hidden_dim
        self.text_encoder = SmallTextEncoder(config)
        self._setup_vector_output()


class SmallVisionEncoder(CLIPVisionEncoder):
    """The half of CLIP that sees, from a random start."""

    def __init__(self, config: SmallMultiTaskDiTConfig) -> None:
        nn.Module.__init__(self)
        channels, size, _ = next(iter(config.image_features.values())).shape
        self.model = CLIPVisionModel(
            CLIPVisionConfig(
                **_sizes(config.vision_width, config.vision_layers, config.vision_heads),
                num_channels=channels,
                image_size=size,
                patch_size=config.patch_size,
            )
        )
        self.num_non_spatial_tokens = 1
        self.embed_dim = config.vision_width


class SmallTextEncoder(CLIPTextEncoder):
    """The half of CLIP that reads, frozen at a random start: random features of a sentence tell it from others."""

    def __init__(self, config: SmallMultiTaskDiTConfig) -> None:
        nn.Module.__init__(self)
        if not config.sentences:
            raise ValueError("sentences: must name the instructions whose words the policy knows, got none")
        tokenizer = word_tokenizer(config.sentences)
        longest = max(len(tokens) for tokens in tokenizer(config.sentences)["input_ids"]) + len("\n")
        if longest > config.tokenizer_max_length:
            raise ValueError(
                f"tokenizer_max_length: an instruction has {longest} tokens with the newline that ends it, got "
                f"{config.tokenizer_max_length}"
            )
        self.projection_dim = config.hidden_dim
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                **_sizes(config.words_width, config.words_layers, WORDS_HEADS),
                vocab_size=len(tokenizer),
                max_position_embeddings=config.tokenizer_max_length,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=None,
                eos_token_id=tokenizer.convert_tokens_to_ids("\n"),  # what has been read is taken from here
            )
        ).requires_grad_(False)
        self.text_embed_dim = config.words_width
        self.projection = nn.Linear(self.text_embed_dim, self.projection_dim)


def _sizes(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
