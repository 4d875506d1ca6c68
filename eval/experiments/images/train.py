"""Train the image model and the classifier that judges it.

``python -m eval.experiments.images.train`` writes both to the folder ``checkpoint`` beside this file, in minutes on one
CPU thread. With ``--flow``, the same model is trained by flow matching instead, into ``flow_checkpoint``.
"""

import argparse
import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from tqdm import trange

from eval.experiments.images.data import Digits, load
from eval.experiments.images.features import Classifier
from eval.experiments.images.model import (
    CHECKPOINT,
    FLOW_CHECKPOINT,
    NUM_TRAIN_TIMESTEPS,
    new_transformer,
    noise_scheduler,
)

BATCH_SIZE, LEARNING_RATE, WARMUP, EMA = 64, 1.5e-3, 100, 0.995
Loss = Callable[[torch.nn.Module, Tensor, Tensor], Tensor]


def train_transformer(digits: Digits, steps: int, loss_of: Loss, seed: int = 0) -> torch.nn.Module:
    """Train the image model.

    Args:
        digits: Pictures and labels.
        steps: Number of optimizer updates.
        loss_of: Loss of a model on pictures `[B, 1, 8, 8]` and labels `[B]`.
        seed: Seed of weights and batches.

    Returns:
        The exponential moving average of the weights, in eval mode.
    """
    torch.manual_seed(seed)
    # The model trains in eval mode: in training mode every layer would drop the label independently.
    model = new_transformer().eval()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, steps))
    with trange(steps, desc="image model", unit="update") as bar:
        for step in bar:
            loss = loss_of(model, *_draw(digits))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            decay = min(EMA, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
            bar.set_postfix(loss=f"{loss.item():.3f}")
    return average


def train_classifier(digits: Digits, steps: int, seed: int = 0) -> Classifier:
    """Train the classifier to read digits that are shifted by up to a pixel and slightly noisy."""
    torch.manual_seed(seed)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, steps))
    with trange(steps, desc="classifier", unit="update") as bar:
        for _ in bar:
            images, labels = _draw(digits)
            shift = torch.randint(-1, 2, (2,)).tolist()
            seen = images.roll(shift, dims=(2, 3)) + 0.1 * torch.randn_like(images)
            loss = F.cross_entropy(model(seen), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def _learning_rate(step: int, steps: int) -> float:
    """Factor of the learning rate: a linear rise, then a fall along a cosine."""
    return min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)


def _draw(digits: Digits) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(digits.images), (BATCH_SIZE,))
    return digits.images[rows], digits.labels[rows]


def noise_loss(noise_of: DDIMScheduler, model: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Loss of predicting the noise in a picture (DDPM's simple loss)."""
    noise = torch.randn_like(images)
    timesteps = torch.randint(NUM_TRAIN_TIMESTEPS, (len(images),))
    noisy = noise_of.add_noise(images, noise, timesteps)
    return F.mse_loss(model(noisy, timestep=timesteps, class_labels=labels).sample, noise)


def velocity_loss(model: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Loss of predicting noise - picture at an even share of noise (rectified flow)."""
    noise, share = torch.randn_like(images), torch.rand(len(images))
    noisy = torch.lerp(images, noise, share[:, None, None, None])
    told = share * NUM_TRAIN_TIMESTEPS
    return F.mse_loss(model(noisy, timestep=told, class_labels=labels).sample, noise - images)


def main() -> None:
    """Train both and write them, the transformer in half precision; or the transformer alone, by flow matching."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--classifier-steps", type=int, default=1500)
    parser.add_argument("--flow", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    output = options.output or (FLOW_CHECKPOINT if options.flow else CHECKPOINT)
    learned_from, held_out = load()
    output.mkdir(parents=True, exist_ok=True)
    if not options.flow:
        classifier = train_classifier(learned_from, options.classifier_steps)
        save_file(classifier.state_dict(), output / "classifier.safetensors")
        print(f"classifier: accuracy {classifier.accuracy(*held_out):.3f} on {len(held_out.labels)} held-out digits")
    loss_of = velocity_loss if options.flow else partial(noise_loss, noise_scheduler())
    train_transformer(learned_from, options.steps, loss_of).half().save_pretrained(output)


if __name__ == "__main__":
    main()
