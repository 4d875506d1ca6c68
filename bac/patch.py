"""The only file that mutates a model.

An interceptor is an instance attribute that shadows a method of the class, ``layer._ff_block`` or ``module.forward``.
Nothing else is touched: no sub-module is added, so `state_dict()` keys, saving and parameter names stay as they were,
and taking the interceptor off restores ``vars(module)`` exactly. Which modules are patched is read off the modules
themselves; there is no registry to go stale.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, SupportsIndex

from torch import nn

from bac.errors import PatchError


class Interceptor(ABC):
    """Stands in for a callable of a module and may call it: `original`."""

    original: Callable[..., Any]
    _shadowed_own: bool

    @abstractmethod
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Called in place of `original`, with its arguments."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Interceptor:
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        vars(clone).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return clone

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise PatchError(
            "a wrapped policy cannot be pickled, because its blocks are intercepted; "
            "call bac.unwrap(policy) first and bac.wrap(policy, schedule) on the loaded one"
        )


def put_on(owner: nn.Module, attribute: str, interceptor: Interceptor) -> None:
    """Let `interceptor` stand in for ``owner.attribute``."""
    interceptor._shadowed_own = attribute in vars(owner)
    interceptor.original = getattr(owner, attribute)
    vars(owner)[attribute] = interceptor


def take_off(owner: nn.Module, attribute: str) -> None:
    """Put back what the interceptor on ``owner.attribute`` stood in for."""
    interceptor = vars(owner)[attribute]
    if interceptor._shadowed_own:
        vars(owner)[attribute] = interceptor.original
    else:
        del vars(owner)[attribute]


def interceptors(root: nn.Module) -> Iterator[tuple[nn.Module, str, Interceptor]]:
    """Every interceptor on `root` and its sub-modules, as (owner, attribute, interceptor)."""
    for module in root.modules():
        for attribute, value in tuple(vars(module).items()):
            if isinstance(value, Interceptor):
                yield module, attribute, value


def take_off_all(root: nn.Module) -> None:
    """Take every interceptor off `root`, however many lie on top of each other."""
    while found := list(interceptors(root)):
        for owner, attribute, _ in found:
            take_off(owner, attribute)
