"""Whether the policy and the cache may share a tensor.

A policy that adds its residuals in place (``h = branch(x); h += x``) writes into what a block returned, and so into the
stored feature. PyTorch counts the writes into a tensor, which tells such policies apart:

- in the first run every feature is copied, and what the policy received is watched;
- a complete run without a write shows that sharing is safe, and saves the copies from then on;
- one write, whenever it comes, brings the copies back for good, and what it spoilt is computed anew.

Inference tensors have no such count, so a policy that only ever runs in inference mode is given copies always. A plan
drops them again. A write that PyTorch does not count (through ``.data`` or NumPy) cannot be seen.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from typing import Any

from torch import Tensor

from bac.caching.interceptors.nested import tensors_within

logger = logging.getLogger(__name__)

Lent = list[tuple[Tensor, int]]  # a tensor that the policy holds, and its number of writes


class Ownership:
    """What a policy does to the tensors that it receives.

    Attributes:
        copies: The policy receives copies.
    """

    def __init__(self) -> None:
        self.copies = True
        self._writes = False
        self._blind = False
        self._lent: dict[Hashable, Lent] = {}

    def begin(self) -> None:
        """Watch a new run."""
        self._lent = {}
        self._blind = False

    def lend(self, key: Hashable, *outputs: Any, more: bool = False) -> None:
        """Watch tensors that the policy and the store hold; with `more`, besides those already watched."""
        if self._writes:
            return
        lent = [(tensor, tensor._version) for output in outputs for tensor in self._counted(output)]
        self._lent[key] = [*self._lent.get(key, ()), *lent] if more else lent

    def is_intact(self, key: Hashable) -> bool:
        """Whether the stored tensors are as they were stored."""
        for tensor, version in self._lent.get(key, ()):
            if tensor._version != version:
                shared, self.copies, self._writes = not self.copies, True, True
                self._lent = {}
                logger.info("the policy writes into what a block returns, so it receives copies")
                return not shared
        return True

    def settle(self) -> None:
        """Learn from a complete run."""
        for key in list(self._lent):
            self.is_intact(key)
        self.copies = self._writes or (self.copies and (self._blind or not self._lent))

    def _counted(self, output: Any) -> Iterator[Tensor]:
        for tensor in tensors_within(output):
            if tensor.is_inference():
                self._blind = True
            else:
                yield tensor
