"""A small CNN that reads digits and gives features for the Frechet distance.

The usual Frechet distance (FID) takes features of Inception on ImageNet. They say little about digits of 8 x 8 pixels,
and the weights cannot be shipped. Ours takes the last hidden layer of this classifier, so its values can be compared
with each other but not with a published FID.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy import linalg
from torch import Tensor, nn

from eval.experiments.images.data import NUM_CLASSES

CLASSIFIER = Path(__file__).parent / "checkpoint" / "classifier.safetensors"
NUM_FEATURES = 32


class Classifier(nn.Module):
    """A classifier with two convolutions and one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32 * 16, NUM_FEATURES),
            nn.GELU(),
        )
        self.head = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Classify pictures `[B, 1, 8, 8]` in [-1, 1]; returns logits `[B, 10]`."""
        logits: Tensor = self.head(self.hidden(images))
        return logits

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer, `[B, 32]`."""
        hidden: Tensor = self.hidden(images)
        return hidden

    @torch.inference_mode()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of the pictures that are read as their label, in [0, 1]."""
        return float((self(images).argmax(dim=1) == labels).double().mean())


def load_classifier(path: Path = CLASSIFIER) -> Classifier:
    """Load the trained classifier."""
    classifier = Classifier().eval()
    classifier.load_state_dict(load_file(path))
    return classifier


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Frechet distance between normal distributions fitted to two sets of features (Dowson and Landau 1982).

    ``|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``

    Args:
        one: Features, `[N, D]`, with N well above D.
        other: Features, `[M, D]`.
    """
    (mean, covariance), (other_mean, other_covariance) = _moments(one), _moments(other)
    root = linalg.sqrtm(covariance @ other_covariance)
    trace = np.trace(covariance) + np.trace(other_covariance) - 2 * np.trace(np.real(root))
    return float(np.square(mean - other_mean).sum() + max(trace, 0.0))


def _moments(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    values = features.double().numpy()
    return values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False))


def psnr(images: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio over all pictures together [dB], at most 150, the limit of float32.

    Args:
        images: Pictures in [-1, 1], so that the peak is 2.
        reference: Reference pictures of the same shape.
    """
    error = (images.double() - reference.double()).square().mean().clamp(min=4e-15)
    return float(10 * torch.log10(4.0 / error))
