"""DP-T in training: batches from memory, low-precision working weights, float32 masters, and the masters' average."""

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from lerobot.utils.constants import ACTION
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from policies.demonstrations import Demonstrations
from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from policies.diffusion_transformer.solvers import FLOW
from policies.master_weights import MasterWeights
from policies.windows import Windows

COLUMNS = ("step", "loss", "held_out_error", "learning_rate", "seconds")
NUM_HELD_OUT_WINDOWS = 256
MEASURING_STEPS = 10


class Trainer:
    """A policy in training, with all its changing state, so that training can be saved and continued.

    Args:
        cfg: `configs/train.yaml`.
        demonstrations: Demonstrations to learn from.
    """

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations) -> None:
        torch.manual_seed(cfg.seed)
        self.cfg = cfg
        self.demonstrations = demonstrations
        self.config = make_config(cfg, demonstrations)
        self.processors = make_diffusion_transformer_pre_post_processors(self.config, demonstrations.stats())
        self.num_held_out = max(1, round(demonstrations.num_episodes * cfg.held_out))
        self.windows, self.held_out = self._cut_windows()
        self.policy = DiffusionTransformerPolicy(self.config).to(cfg.device)
        if cfg.initial is not None:
            load_model(self.policy, Path(cfg.initial) / SAFETENSORS_SINGLE_FILE)
        self.averaged = DiffusionTransformerPolicy(self.config).to(cfg.device).eval()
        self.averaged.diffusion.use_solver(self._measuring_solver, MEASURING_STEPS)
        self.master = MasterWeights(self.policy, getattr(torch, cfg.dtype))
        self.optimizer = torch.optim.AdamW(
            self.master.groups(self.policy.get_optim_params()),
            lr=cfg.learning_rate,
            betas=self.config.optimizer_betas,
            weight_decay=cfg.weight_decay,
            fused=True,
        )
        self.rate = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, cfg.learning_rate, total_steps=cfg.steps, pct_start=cfg.warmup, cycle_momentum=False
        )
        self.ema = EMAModel(
            self.master.parameters.values(), decay=cfg.ema_decay, use_ema_warmup=True, power=0.75, foreach=True
        )
        self.step = 0
        self.seconds = 0.0
        self.rows: list[dict[str, float | None]] = []

    @property
    def _measuring_solver(self) -> str:
        return FLOW if self.config.noise_scheduler_type == FLOW else "DDIM"

    def _cut_windows(self) -> tuple[Windows, Windows]:
        """Cut the windows to train on, and the windows of the held-out episodes, which are the last ones."""
        tensors = normalise(self.demonstrations, self.processors[0])
        ends = self.demonstrations.episode_ends
        first_held_out = len(ends) - self.num_held_out
        offsets = self.config.observation_delta_indices, self.config.action_delta_indices
        train = Windows.cut(tensors, ends[:first_held_out], *offsets, self.config.drop_n_last_frames)
        start = ends[first_held_out - 1]
        tail = {key: tensor[start:] for key, tensor in tensors.items()}
        return train, Windows.cut(tail, ends[first_held_out:] - start, *offsets, self.config.drop_n_last_frames)

    def update(self) -> float:
        """Make one optimizer step, and return the loss."""
        started = time.perf_counter()
        batch = self.windows.batch(torch.randint(len(self.windows), (self.cfg.batch_size,)))
        # Actions stay float32: noise is added to them before they are rounded.
        dtype = getattr(torch, self.cfg.dtype)
        batch |= {key: value.to(dtype) for key, value in batch.items() if key.startswith("observation")}
        # The fused attention kernel has a slow backward pass on CPUs; plain matrix products do not.
        with sdpa_kernel(SDPBackend.MATH):
            loss, _ = self.policy(batch)
            loss.backward()
        self.master.take_gradients()
        torch.nn.utils.clip_grad_norm_(self.master.parameters.values(), self.cfg.gradient_norm)
        self.optimizer.step()
        self.rate.step()
        self.master.round_to_working()
        self.ema.step(self.master.parameters.values())
        self.step += 1
        self.seconds += time.perf_counter() - started
        return loss.item()

    def measure(self) -> float:
        """Mean absolute action error of the averaged weights on held-out windows, normalised units.

        The solver is DDIM, or a flow's own, with `MEASURING_STEPS`.
        """
        self.ema.copy_to(self.averaged.parameters())
        generator = torch.Generator(self.cfg.device).manual_seed(self.cfg.seed)
        count = min(NUM_HELD_OUT_WINDOWS, len(self.held_out))
        batch = self.held_out.batch(torch.linspace(0, len(self.held_out) - 1, count).long())
        chunk = self.averaged.predict_action_chunk(batch, generator=generator)
        start = self.config.n_obs_steps - 1
        wanted = batch[ACTION][:, start : start + self.config.n_action_steps]
        return (chunk - wanted).abs().mean().item()

    def log(self, losses: Sequence[float], held_out_error: float | None) -> None:
        """Add a row: the mean of `losses` since the last row, and the result of `measure` if there is one."""
        loss = sum(losses) / len(losses)
        values = (self.step, loss, held_out_error, self.rate.get_last_lr()[0], self.seconds)
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """The state from which `load_state_dict` continues as if training had never stopped."""
        return {
            "master": {name: p.detach() for name, p in self.master.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "rate": self.rate.state_dict(),
            "ema": self.ema.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state that `state_dict` returned."""
        with torch.no_grad():
            for name, parameter in self.master.parameters.items():
                parameter.copy_(state["master"][name])
        self.master.round_to_working()
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate.load_state_dict(state["rate"])
        self.ema.load_state_dict(state["ema"])
        torch.set_rng_state(state["random"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]

    def save(self, state: str | Path, output: str | Path) -> None:
        """Write the state to continue from, and the averaged weights with their processors as a LeRobot checkpoint."""
        state = Path(state)
        state.parent.mkdir(parents=True, exist_ok=True)
        unfinished = state.with_suffix(".unfinished")
        torch.save(self.state_dict(), unfinished)
        unfinished.replace(state)
        self.ema.copy_to(self.averaged.parameters())
        self.averaged.save_pretrained(output)
        for processor, side in zip(self.processors, ("pre", "post"), strict=True):
            processor.save_pretrained(output, config_filename=f"policy_{side}processor.json")
        with (Path(output) / "train.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    def facts(self) -> dict[str, object]:
        """Facts for the model card: all options, and the outcome of training."""
        return {
            **vars(self.config),
            **OmegaConf.to_container(self.cfg, resolve=True),
            **self.demonstrations.attrs,
            "parameters": sum(p.numel() for p in self.policy.parameters()),
            "num_episodes": self.demonstrations.num_episodes,
            "num_steps": int(self.demonstrations.episode_ends[-1]),
            "num_held_out": self.num_held_out,
            "step": self.step,
            "minutes": self.seconds / 60,
            "held_out_error": self.rows[-1]["held_out_error"],
            "measured_with": f"{self._measuring_solver}-{MEASURING_STEPS}",
        }


def make_config(cfg: DictConfig, demonstrations: Demonstrations) -> DiffusionTransformerConfig:
    """Make the policy's configuration from `cfg.policy` and the features of the demonstrations."""
    features = demonstrations.features()
    return DiffusionTransformerConfig(
        **OmegaConf.to_container(cfg.policy),
        input_features={key: feature for key, feature in features.items() if key != ACTION},
        output_features={ACTION: features[ACTION]},
        device=cfg.device,
        push_to_hub=False,
    )


def normalise(demonstrations: Demonstrations, preprocessor: Any) -> dict[str, Tensor]:
    """Normalise all control steps at once with the preprocessor, `[n, size]` each, float32."""
    normalised = preprocessor({key: torch.from_numpy(array) for key, array in demonstrations.arrays.items()})
    return {key: normalised[key] for key in demonstrations.arrays}
