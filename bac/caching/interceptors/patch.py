"""The only file that mutates a model.

An interceptor is an instance attribute that shadows a method of the class, ``layer._ff_block`` or ``module.forward``.
Nothing else changes: no sub-module is added, so `state_dict()` keys, saving and parameter names stay as they were.
Taking the interceptor off restores ``vars(module)`` exactly. The modules themselves tell whether they are patched;
there is no registry to go stale.

A pipeline of diffusers is an ordinary object, patched likewise; its modules are among its attributes. Python looks up
``__call__`` on the class alone. While it is shadowed, the object therefore has a sub-class of the same name, which
looks at the object first.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn, SupportsIndex

from torch import nn

from bac.errors import CalibrationError, PatchError


class Interceptor(ABC):
    """Shadows a callable of a module and may call it: `original`.

    Attributes:
        original: The shadowed callable: the module's own, or another interceptor.
        shadowed: What comes back when it is taken off. `original`, unless that was put aside (`put_aside`).
        role: Name in a description of the stack.
    """

    original: Callable[..., Any]
    shadowed: Callable[..., Any]
    role: ClassVar[str] = "other"
    _shadowed_own: bool

    @abstractmethod
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Replace a call of `original`, with its arguments."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Interceptor:
        # By hand, because copy.deepcopy would call __reduce_ex__, which refuses.
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        vars(clone).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return clone

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise PatchError(
            "a wrapped policy cannot be pickled, because its blocks are intercepted; "
            "call bac.unwrap(policy) first and bac.wrap(policy, schedule) on the loaded one"
        )


class _CalledThroughItself:
    """Mixed into an object's class, so that calling the object calls its own attribute ``__call__``."""

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return vars(self)["__call__"](*inputs, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        clone = object.__new__(type(self))
        memo[id(self)] = clone
        vars(clone).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return clone

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        vars(self)["__call__"].__reduce_ex__(protocol)
        raise AssertionError("an interceptor cannot be reduced")


def put_on(owner: Any, attribute: str, interceptor: Interceptor) -> None:
    """Shadow ``owner.attribute`` with `interceptor`."""
    interceptor._shadowed_own = attribute in vars(owner)  # a lower interceptor, or the owner's own attribute
    interceptor.original = interceptor.shadowed = getattr(owner, attribute)
    vars(owner)[attribute] = interceptor  # not setattr: nn.Module has its own, which sorts values into registries
    if attribute == "__call__" and not isinstance(owner, _CalledThroughItself):
        cls = type(owner)
        # The dotted name must stay, since adapters recognise the class by it.
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        owner.__class__ = type(cls.__name__, (_CalledThroughItself, cls), names)


def put_above(owner: Any, attribute: str, below: Interceptor, interceptor: Interceptor) -> None:
    """Put `interceptor` directly above another one of the stack on ``owner.attribute``."""
    above = next((one for one in stack_on(owner, attribute) if one.original is below), None)
    interceptor._shadowed_own = True
    interceptor.original = interceptor.shadowed = below
    if above is None:
        vars(owner)[attribute] = interceptor
    else:
        above.original = above.shadowed = interceptor


def take_off(owner: Any, attribute: str) -> None:
    """Restore the callable that the interceptor on ``owner.attribute`` shadows."""
    interceptor = vars(owner)[attribute]
    if interceptor._shadowed_own:
        vars(owner)[attribute] = interceptor.shadowed
    else:
        del vars(owner)[attribute]
        if attribute == "__call__":
            owner.__class__ = type(owner).__mro__[2]  # the MRO: itself, the mixed-in class, the class before


def interceptors(root: Any) -> Iterator[tuple[Any, str, Interceptor]]:
    """The topmost interceptors on `root` and its (sub-)modules, as (owner, attribute, interceptor)."""
    for owner in _owners(root):
        for attribute, value in tuple(vars(owner).items()):
            if isinstance(value, Interceptor):
                yield owner, attribute, value


def stack_on(owner: Any, attribute: str) -> Iterator[Interceptor]:
    """The interceptors on ``owner.attribute``, outermost first."""
    below = vars(owner).get(attribute)
    while isinstance(below, Interceptor):
        yield below
        below = below.original


def stacked(root: Any) -> Iterator[Interceptor]:
    """Every interceptor on `root` and its (sub-)modules, stack by stack, outermost first."""
    for owner, attribute, _ in interceptors(root):
        yield from stack_on(owner, attribute)


def take_off_all(root: Any) -> None:
    """Take every interceptor off `root`, whole stacks included."""
    while found := list(interceptors(root)):  # taking one off may uncover the one below
        for owner, attribute, _ in found:
            take_off(owner, attribute)


@contextmanager
def put_aside(owner: Any, attribute: str, instead: Callable[..., Any]) -> Iterator[None]:
    """Put interceptors on `instead`, within the context, where ``owner.attribute`` is the owner's own callable.

    Taken off, they leave what was there before.
    """
    aside = vars(owner)[attribute]
    vars(owner)[attribute] = instead
    try:
        yield
    finally:
        stack = list(stack_on(owner, attribute))
        if stack:
            stack[-1].shadowed = aside
        else:
            vars(owner)[attribute] = aside


@contextmanager
def lifted(root: nn.Module, *, but: tuple[Any, str]) -> Iterator[None]:
    """Within the context `root` runs as if it was untouched; afterwards the same interceptors are back.

    Args:
        root: The module that carries the interceptors.
        but: Owner and attribute whose stack stays where it is.
    """
    found = [(owner, name, top) for owner, name, top in interceptors(root) if (owner, name) != but]
    try:
        for owner, attribute, _ in found:
            lowest = list(stack_on(owner, attribute))[-1]
            if lowest._shadowed_own:
                vars(owner)[attribute] = lowest.shadowed
            else:
                del vars(owner)[attribute]
        yield
    finally:
        for owner, attribute, top in found:
            vars(owner)[attribute] = top


def require_untouched(root: Any) -> None:
    """Refuse to measure a wrapped policy.

    Raises:
        CalibrationError: The policy is wrapped.
    """
    if any(True for _ in interceptors(root)):
        raise CalibrationError("policy: must be untouched to be measured; call bac.unwrap(policy) first")


def _owners(root: Any) -> Iterator[Any]:
    """A module and its sub-modules; or an object and the modules within its attributes, each once."""
    if isinstance(root, nn.Module):
        yield from root.modules()
    else:
        yield root
        # A ModuleList yields shared modules once; [1:] leaves the list itself out.
        yield from list(nn.ModuleList(part for part in vars(root).values() if isinstance(part, nn.Module)).modules())[
            1:
        ]
