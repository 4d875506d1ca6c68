"""Train the image model and the classifier that judges it.

``python -m eval.experiments.images.train`` writes both to the folder ``checkpoint`` beside this file, in minutes on one
CPU thread.
"""

import argparse
import copy
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from tqdm import trange

from eval.experiments.images.data import Digits, load
from eval.experiments.images.features import Classifier
from eval.experiments.images.model import CHECKPOINT, NUM_TRAIN_TIMESTEPS, new_transformer, noise_scheduler

BATCH_SIZE, LEARNING_RATE, WARMUP, EMA = 64, 1.5e-3, 100, 0.995


def train_transformer(digits: Digits, steps: int, seed: int = 0) -> torch.nn.Module:
    """Train the model to predict the noise in a picture (DDPM's simple loss).

    Args:
        digits: Pictures and labels.
        steps: Number of optimizer updates.
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
    noise_of = noise_scheduler()
    with trange(steps, desc="image model", unit="update") as bar:
        for step in bar:
            loss = _noise_loss(model, noise_of, *_draw(digits))
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


def _noise_loss(model: torch.nn.Module, noise_of, images: Tensor, labels: Tensor) -> Tensor:
    noise = torch.randn_like(images)
    timesteps = torch.randint(NUM_TRAIN_TIMESTEPS, (len(images),))
    noisy = noise_of.add_noise(images, noise, timesteps)
    return F.mse_loss(model(noisy, timestep=timesteps, class_labels=labels).sample, noise)


def main() -> None:
    """Train both and write them, the transformer in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--classifier-steps", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    learned_from, held_out = load()
    options.output.mkdir(parents=True, exist_ok=True)
    classifier = train_classifier(learned_from, options.classifier_steps)
    save_file(classifier.state_dict(), options.output / "classifier.safetensors")
    print(f"classifier: accuracy {classifier.accuracy(*held_out):.3f} on {len(held_out.labels)} held-out digits")
    train_transformer(learned_from, options.steps).half().save_pretrained(options.output)


if __name__ == "__main__":
    main()
