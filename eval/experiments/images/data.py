"""Scikit-learn's digits: 1,797 grey pictures of 8 x 8 pixels, in ten classes (UCI, Alpaydin and Kaynak 1998)."""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_CLASSES = 10
SIZE = 8  # pixels
_SHADES = 16.0
_NUM_TEST = 297


class Digits(NamedTuple):
    """Pictures and the digits that they show.

    Attributes:
        images: Pictures, `[N, 1, 8, 8]`, in [-1, 1]; ink is 1.
        labels: Digits, `[N]`, in 0..9.
    """

    images: Tensor
    labels: Tensor


def load() -> tuple[Digits, Digits]:
    """Load the first 1,500 pictures, which models are trained on, and the last 297, by other writers."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    shown = torch.from_numpy(images).float().view(-1, 1, SIZE, SIZE) / (_SHADES / 2) - 1
    classes = torch.from_numpy(labels).long()
    return Digits(shown[:-_NUM_TEST], classes[:-_NUM_TEST]), Digits(shown[-_NUM_TEST:], classes[-_NUM_TEST:])
