"""Puts samplers aside that LeRobot compiled (``compile_model``, ``--use_torch_compile``): interceptors need Python.

A plan takes the place of the compiled code: it spares the same overhead, is built in seconds, and makes the policy's
own bits. `bac.unwrap` brings the compiled sampler back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from bac.caching.interceptors.patch import Interceptor, put_aside

logger = logging.getLogger(__name__)

_EAGER = "_torchdynamo_orig_callable"  # PyTorch's mark of a compiled function: what it was compiled from
_TRAINING = "forward"  # compiled for the loss; no sampler calls it


@contextmanager
def uncompiled(policy: nn.Module) -> Iterator[None]:
    """Let `bac.wrap`, within the context, intercept what compiled methods of the policy were compiled from."""
    found = list(_compiled(policy))
    with ExitStack() as aside:
        for owner, name, eager in found:
            aside.enter_context(put_aside(owner, name, eager))
        yield
    for owner, name, _ in found:
        if isinstance(vars(owner)[name], Interceptor):
            logger.info("bac: %s: its compiled %s is put aside while bac is on", type(policy).__name__, name)


def _compiled(policy: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Compiled methods: owner, name, and what each was compiled from."""
    for module in policy.modules():
        for name, value in tuple(vars(module).items()):
            if name != _TRAINING and callable(value) and (eager := getattr(value, _EAGER, None)) is not None:
                yield module, name, eager
