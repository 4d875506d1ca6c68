"""Rules that decide during a run what is computed: no calibration, but a look at the numbers at every step.

They go where a schedule goes, ``bac.wrap(policy, FirstBlock(num_steps=100, threshold=0.1))``, and are interpreted,
never replayed: what a run computes is not known before it. On a robot the time of the next chunk is not known either.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from bac.errors import RunError
from bac.online.accumulated_change import AccumulatedChange
from bac.online.block_change import BlockChange
from bac.online.codebook import Codebook
from bac.online.first_block import FirstBlock
from bac.online.rule import OnlineBlock, OnlineRule
from bac.patch import interceptors

__all__ = ["AccumulatedChange", "BlockChange", "Codebook", "FirstBlock", "OnlineRule", "last_mask"]


def last_mask(policy: nn.Module) -> npt.NDArray[np.bool_]:
    """What the last complete run of a policy computed, `[K, N]`, columns in order of evaluation.

    Raises:
        RunError: The policy is not wrapped with an online rule, or made no run yet.
    """
    runs = [interceptor.run for _, _, interceptor in interceptors(policy) if isinstance(interceptor, OnlineBlock)]
    if not runs or not len(runs[0].mask):
        raise RunError(f"{type(policy).__name__}: no run under an online rule yet; wrap it with one and predict")
    return runs[0].mask
