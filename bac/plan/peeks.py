"""Notices where a run reads numbers past PyTorch's operators, so that no tape can see it.

``torch.tensor([x.max(), 1.0])`` takes the number out of `x` within C++, and so do ``str(x)``, the storage, DLPack and
NumPy's protocol. The functions themselves are seen by a mode of their own. It is not on while a tape records or the
reference is made, because PyTorch takes other paths through some layers under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MAKES = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, Tensor.new_tensor}
_TAKES = {
    Tensor.__repr__, Tensor.__format__, Tensor.__array__, Tensor.__dlpack__, Tensor.numpy, Tensor.tolist,
    Tensor.untyped_storage, Tensor.storage, Tensor._typed_storage,
}  # fmt: skip


class Peeks(TorchFunctionMode):
    """Within the context, tells of every tensor whose numbers are read so.

    Args:
        tell: Called with the tensor and the name of the function.
    """

    def __init__(self, tell: Callable[[Tensor, str], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        for tensor in _read(func, args, options):
            self._tell(tensor, str(getattr(func, "__name__", func)))
        return func(*args, **options)


def _read(func: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Iterator[Tensor]:
    if func in _MAKES:
        for given in (*args, *options.values()):
            if isinstance(given, (list, tuple)):  # a tensor itself is copied by operators
                yield from _within(given)
    elif func in _TAKES and isinstance(args[0], Tensor):
        yield args[0]


def _within(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (list, tuple)):
        for part in given:
            yield from _within(part)
