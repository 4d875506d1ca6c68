"""Train DP-T on demonstrations held in memory: ``python -m policies.train task=assembly-v3``.

LeRobot's trainer reads frames one by one from a dataset on disk; on a CPU and low-dimensional observations that
takes longer than the network. Here the whole data set is a few tensors, normalised once, and a batch is an index.
The checkpoint is LeRobot's format, so everything that loads one from its trainer loads this.
"""

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from diffusers.training_utils import EMAModel
from lerobot.utils.constants import ACTION
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from policies.demonstrations import Demonstrations
from policies.diffusion_transformer.configuration_diffusion_transformer import DiffusionTransformerConfig
from policies.diffusion_transformer.modeling_diffusion_transformer import DiffusionTransformerPolicy
from policies.diffusion_transformer.processor_diffusion_transformer import (
    make_diffusion_transformer_pre_post_processors,
)
from policies.master_weights import MasterWeights
from policies.model_card import draw_training_curve, write_model_card
from policies.windows import Windows

logger = logging.getLogger(__name__)

COLUMNS = ("step", "loss", "held_out_error", "learning_rate", "seconds")
NUM_HELD_OUT_WINDOWS = 256


class Trainer:
    """A policy in training, with everything that changes, so that it can be saved and continued.

    Args:
        cfg: `configs/train.yaml`.
        demonstrations: What to learn from.
    """

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations) -> None:
        torch.manual_seed(cfg.seed)
        self.cfg = cfg
        self.demonstrations = demonstrations
        self.config = make_config(cfg, demonstrations)
        self.processors = make_diffusion_transformer_pre_post_processors(self.config, demonstrations.stats())
        self.num_held_out = round(demonstrations.num_episodes * cfg.held_out)
        self.windows, self.held_out = self._cut_windows()
        self.policy = DiffusionTransformerPolicy(self.config).to(cfg.device)
        self.averaged = DiffusionTransformerPolicy(self.config).to(cfg.device).eval()
        self.dtype = getattr(torch, cfg.dtype)
        self.master = MasterWeights(self.policy, self.dtype)
        self.optimizer = torch.optim.AdamW(
            self.master.groups(self.policy.get_optim_params()),
            lr=cfg.learning_rate,
            betas=self.config.optimizer_betas,
            weight_decay=cfg.weight_decay,
            fused=True,
        )
        self.rate = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            cfg.learning_rate,
            total_steps=cfg.steps,
            pct_start=cfg.warmup,
            cycle_momentum=False,
        )
        self.ema = EMAModel(
            self.master.parameters.values(),
            decay=cfg.ema_decay,
            use_ema_warmup=True,
            power=0.75,
            foreach=True,
        )
        self.step = 0
        self.seconds = 0.0
        self.rows: list[dict[str, float | None]] = []

    def _cut_windows(self) -> tuple[Windows, Windows]:
        """Windows to train on, and those of the held-out episodes, the last ones."""
        tensors = normalise(self.demonstrations, self.processors[0])
        tensors = {key: t if key == ACTION else t.to(getattr(torch, self.cfg.dtype)) for key, t in tensors.items()}
        ends = self.demonstrations.episode_ends
        first_held_out = len(ends) - self.num_held_out
        offsets = self.config.observation_delta_indices, self.config.action_delta_indices
        train = Windows.cut(tensors, ends[:first_held_out], *offsets, self.config.drop_n_last_frames)
        start = ends[first_held_out - 1]
        tail = {key: tensor[start:] for key, tensor in tensors.items()}
        return train, Windows.cut(tail, ends[first_held_out:] - start, *offsets, self.config.drop_n_last_frames)

    def update(self) -> float:
        """One optimizer step; returns the loss."""
        started = time.perf_counter()
        chosen = torch.randint(len(self.windows), (self.cfg.batch_size,))
        loss, _ = self.policy(self.windows.batch(chosen))
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
        """Mean absolute error of the averaged weights' chunks on held-out windows, normalised units, DDIM-10."""
        self.ema.copy_to(self.averaged.parameters())
        generator = torch.Generator(self.cfg.device).manual_seed(self.cfg.seed)
        count = min(NUM_HELD_OUT_WINDOWS, len(self.held_out))
        batch = self.held_out.batch(torch.linspace(0, len(self.held_out) - 1, count).long())
        observations = {key: t.float() for key, t in batch.items() if key.startswith("observation")}
        dense = self.averaged.diffusion.noise_scheduler, self.averaged.diffusion.num_inference_steps
        self.averaged.diffusion.use_solver("DDIM", 10)
        chunk = self.averaged.predict_action_chunk(observations, generator=generator)
        self.averaged.diffusion.noise_scheduler, self.averaged.diffusion.num_inference_steps = dense
        start = self.config.n_obs_steps - 1
        wanted = batch[ACTION][:, start : start + self.config.n_action_steps]
        return (chunk - wanted).abs().mean().item()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if training had never stopped."""
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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        with torch.no_grad():
            for name, parameter in self.master.parameters.items():
                parameter.copy_(state["master"][name])
        self.master.round_to_working()
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate.load_state_dict(state["rate"])
        self.ema.load_state_dict(state["ema"])
        torch.set_rng_state(state["random"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]

    def save(self) -> None:
        """Write the state to continue from, and the checkpoint: averaged weights, processors, curve and card."""
        state_path, output = Path(self.cfg.state), Path(self.cfg.output)
        state_path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = state_path.with_suffix(".unfinished")
        torch.save(self.state_dict(), unfinished)
        unfinished.replace(state_path)
        self.averaged.save_pretrained(output)
        preprocessor, postprocessor = self.processors
        preprocessor.save_pretrained(output, config_filename="policy_preprocessor.json")
        postprocessor.save_pretrained(output, config_filename="policy_postprocessor.json")
        with (output / "train.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        draw_training_curve(output / "training_curve.png", self.rows, f"DP-T on {self.cfg.task}")
        write_model_card(output, self._facts())

    def _facts(self) -> dict[str, object]:
        policy = OmegaConf.to_container(self.cfg, resolve=True)
        parameters = sum(p.numel() for p in self.policy.parameters())
        return {
            **vars(self.config),
            **policy,
            **self.demonstrations.attrs,
            "parameters": parameters,
            "num_episodes": self.demonstrations.num_episodes,
            "num_steps": int(self.demonstrations.episode_ends[-1]),
            "num_held_out": self.num_held_out,
            "command": " ".join(["python -m policies.train", *sys.argv[1:]]),
            "step": self.step,
            "minutes": self.seconds / 60,
            "held_out_error": self.rows[-1]["held_out_error"],
        }


def make_config(cfg: DictConfig, demonstrations: Demonstrations) -> DiffusionTransformerConfig:
    """Policy options from `cfg.policy`, with the features the demonstrations have."""
    features = demonstrations.features()
    return DiffusionTransformerConfig(
        **OmegaConf.to_container(cfg.policy),
        input_features={key: feature for key, feature in features.items() if key != ACTION},
        output_features={ACTION: features[ACTION]},
        device=cfg.device,
        push_to_hub=False,
    )


def normalise(demonstrations: Demonstrations, preprocessor: Any) -> dict[str, Tensor]:
    """All control steps through the preprocessor at once, `[n, size]` each, float32."""
    normalised = preprocessor({key: torch.from_numpy(array) for key, array in demonstrations.arrays.items()})
    return {key: normalised[key] for key in demonstrations.arrays}


def train(cfg: DictConfig) -> Trainer:
    """Train to `cfg.steps`, saving every `cfg.save_every` steps."""
    torch.set_num_threads(cfg.num_threads)
    trainer = Trainer(cfg, Demonstrations.load(cfg.data))
    if cfg.resume:
        trainer.load_state_dict(torch.load(cfg.state, weights_only=True))
    losses: list[float] = []
    progress = tqdm(total=cfg.steps, initial=trainer.step, desc=cfg.task, unit="step", mininterval=2)
    # One fused kernel for attention has a slow backward pass on CPUs; plain matrix products do not.
    with progress, sdpa_kernel(SDPBackend.MATH):
        while trainer.step < cfg.steps:
            losses.append(trainer.update())
            progress.update()
            save = trainer.step % cfg.save_every == 0 or trainer.step == cfg.steps
            if save or trainer.step % cfg.log_every == 0:
                error = trainer.measure() if save else None
                rate = trainer.rate.get_last_lr()[0]
                row = (trainer.step, float(np.mean(losses)), error, rate, trainer.seconds)
                trainer.rows.append(dict(zip(COLUMNS, row, strict=True)))
                losses.clear()
                progress.set_postfix(loss=f"{row[1]:.4f}", error=error)
            if save:
                trainer.save()
    return trainer


@hydra.main(version_base=None, config_path="../configs", config_name="train")
def main(cfg: DictConfig) -> None:
    """Command line of the trainer."""
    train(cfg)


if __name__ == "__main__":
    main()
