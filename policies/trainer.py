"""A policy in training: batches from memory, low-precision working weights, float32 masters, and their average."""

import csv
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from policies.demonstrations import OBS_WRIST, Demonstrations
from policies.master_weights import MasterWeights
from policies.recipes import recipe_named
from policies.windows import Windows

COLUMNS = ("step", "loss", "held_out_error", "learning_rate", "seconds")
NUM_HELD_OUT_WINDOWS = 256
LANGUAGE = (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK)
Stats = Mapping[str, Mapping[str, Any]]


class Trainer:
    """A policy in training, with all its changing state, so that training can be saved and continued.

    Args:
        cfg: `configs/train.yaml`.
        demonstrations: Demonstrations to learn from.
        stats: What to normalise with; None for the statistics of the demonstrations. Training that goes on with more
            of them keeps its own.
    """

    def __init__(self, cfg: DictConfig, demonstrations: Demonstrations, stats: Stats | None = None) -> None:
        torch.manual_seed(cfg.seed)
        self.cfg = cfg
        self.demonstrations = demonstrations
        self.recipe = recipe_named(cfg.policy_type)(cfg, demonstrations)
        self.config = self.recipe.config
        self.stats = demonstrations.stats() if stats is None else stats
        self.processors = self.recipe.processors(self.stats)
        held_out = demonstrations.held_out(cfg.held_out)
        self.num_held_out = int(held_out.sum())
        tensors = self._tensors()
        self.windows, self.held_out = (self._cut(tensors, chosen) for chosen in (~held_out, held_out))
        self.policy = self.recipe.build().to(cfg.device)
        if cfg.initial is not None:
            load_model(self.policy, Path(cfg.initial) / SAFETENSORS_SINGLE_FILE)
        self.averaged = self.recipe.build().to(cfg.device).eval()
        self.master = MasterWeights(self.policy, getattr(torch, cfg.dtype))
        self.optimizer = torch.optim.AdamW(
            self.master.groups(_groups(self.policy.get_optim_params())),
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

    def _tensors(self) -> dict[str, Tensor]:
        """All control steps, normalised, with what the recipe's loss reads too."""
        keys = [key for key in self.demonstrations.arrays if key in {ACTION, *self.config.input_features}]
        return {**normalise(self.demonstrations, self.processors[0], keys), **self.recipe.extra}

    def _cut(self, tensors: dict[str, Tensor], chosen: np.ndarray) -> Windows:
        """Cut the windows of the chosen episodes, with the pictures as they were recorded."""
        shown = self.demonstrations
        pictures = {k: torch.from_numpy(v) for k, v in shown.cameras().items() if k in self.config.input_features}
        seen = self.config.observation_delta_indices or [0]  # None is LeRobot's word for the current step alone
        offsets = seen, self.config.action_delta_indices
        rest = self.recipe.drop_n_last, chosen, pictures, shown.drawn
        return Windows.cut(tensors, shown.episode_ends, *offsets, *rest)

    def update(self) -> float:
        """Make one optimizer step, and return the loss."""
        started = time.perf_counter()
        batch = self.windows.batch(torch.randint(len(self.windows), (self.cfg.batch_size,)))
        # Actions stay float32: noise is added to them before they are rounded.
        dtype = getattr(torch, self.cfg.dtype)
        batch |= {
            key: value.to(dtype)
            for key, value in batch.items()
            if key.startswith("observation") and value.is_floating_point()
        }
        # The fused attention kernel has a slow backward pass on CPUs; plain matrix products do not.
        with sdpa_kernel(SDPBackend.MATH):
            loss = self.recipe.loss(self.policy, batch)
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
        """Mean absolute action error of the averaged weights on held-out windows, normalised units."""
        self._average()
        count = min(NUM_HELD_OUT_WINDOWS, len(self.held_out))
        batch = self.held_out.batch(torch.linspace(0, len(self.held_out) - 1, count).long())
        chunk = self.recipe.predict(self.averaged, batch, self.cfg.seed)
        start = self.config.n_obs_steps - 1
        wanted = batch[ACTION][:, start : start + self.config.n_action_steps]
        return (chunk - wanted).abs().mean().item()

    @torch.no_grad()
    def _average(self) -> None:
        """Set the averaged policy's weights, rounded as the checkpoint will hold them."""
        self.ema.copy_to(self.averaged.parameters())
        for weight in self.averaged.parameters():
            weight.copy_(weight.to(getattr(torch, self.cfg.saved_dtype)))

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
            "stats": {
                key: {name: torch.as_tensor(value) for name, value in values.items()}
                for key, values in self.stats.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state that `state_dict` returned."""
        with torch.no_grad():
            for name, parameter in self.master.parameters.items():
                parameter.copy_(state["master"][name])
        self.master.round_to_working()
        self.optimizer.load_state_dict(state["optimizer"])
        planned = {name: self.rate.state_dict()[name] for name in ("total_steps", "_schedule_phases")}
        self.rate.load_state_dict({**state["rate"], **planned})  # steps= may have changed: the rate still falls to zero
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
        self._average()
        self.averaged.save_pretrained(output)
        if self.cfg.saved_dtype != "float32":
            names = {name for name, _ in self.averaged.named_parameters(remove_duplicate=False)}
            _cast(Path(output) / SAFETENSORS_SINGLE_FILE, names, getattr(torch, self.cfg.saved_dtype))
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
            "parameters": f"{sum(p.numel() for p in self.policy.parameters()):,}",
            "num_episodes": self.demonstrations.num_episodes,
            "num_rows": int(self.demonstrations.episode_ends[-1]),
            "name": self.cfg.task,
            "num_held_out": self.num_held_out,
            "step": self.step,
            "minutes": self.seconds / 60,
            "held_out_error": self.rows[-1]["held_out_error"],
            "measured_with": self.recipe.measured_with,
            **self._picture_facts(),
            **self.recipe.card(),
        }

    def _picture_facts(self) -> dict[str, object]:
        """The pictures that the policy sees: of how many cameras, their size, and whether one is on the wrist."""
        pictures = self.config.image_features
        return {
            "cameras": "one camera" if len(pictures) == 1 else f"{len(pictures)} cameras",
            "pixels": next((feature.shape[-1] for feature in pictures.values()), None),
            "wrist": OBS_WRIST in pictures,
        }


def normalise(demonstrations: Demonstrations, preprocessor: Any, keys: Iterable[str]) -> dict[str, Tensor]:
    """Normalise all control steps at once, and turn their instructions into tokens, `[n, size]` each.

    Args:
        demonstrations: The control steps.
        preprocessor: The policy's preprocessor.
        keys: The arrays that the policy takes.
    """
    rows: dict[str, Any] = {key: torch.from_numpy(demonstrations.arrays[key]) for key in keys}
    words = demonstrations.words()
    normalised = preprocessor({**rows, "task": words} if words else rows)
    return {key: value for key, value in normalised.items() if key in rows or key in LANGUAGE}


def _cast(path: Path, names: Container[str], dtype: torch.dtype) -> None:
    """Write a file of weights anew, with those of these names in `dtype`."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    weights = {key: value.to(dtype) if key in names else value for key, value in load_file(path).items()}
    unfinished = path.with_suffix(".unfinished")
    save_file(weights, unfinished, metadata=metadata)
    unfinished.replace(path)


def _groups(parameters: Any) -> list[dict]:
    """An optimizer's groups of parameters; some policies only have an iterable of parameters."""
    listed = list(parameters)
    return listed if isinstance(listed[0], dict) else [{"params": listed}]
