"""What lies around a run and is no part of it: modes, forward hooks, autocast, and Python's garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils._device import DeviceContext

AUTOCAST_DEVICES = ("cpu", "cuda")


@contextmanager
def as_recorded() -> Iterator[None]:
    """Within the context, autocast is off: the casts that it made during the recording are operators of the program."""
    on = [device for device in AUTOCAST_DEVICES if torch.is_autocast_enabled(device)]
    try:
        for device in on:
            torch.set_autocast_enabled(device, False)
        yield
    finally:
        for device in on:
            torch.set_autocast_enabled(device, True)


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause garbage collection.

    A collection calls functions of the whole process: finalizers, and what tools put into ``gc.callbacks``. Those would
    count as code of the run that it interrupts. A build, too, keeps hundreds of thousands of small objects, and
    scanning them doubles its time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def has_mode() -> bool:
    """Whether a mode is on that intercepts functions and may change numbers.

    ``with torch.device(..)`` does not count: a plan has the devices of new tensors in it.
    """
    modes = map(torch._C._get_function_stack_at, range(torch._C._len_torch_function_stack()))
    return any(not isinstance(mode, DeviceContext) for mode in modes)


def hooks_of(owner: nn.Module) -> list[Any]:
    """The dictionaries of hooks themselves, so that a look at them sees hooks that are added later."""
    own = [hooks for module in owner.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks)]
    return [_global_forward_hooks, _global_forward_pre_hooks, *own]
