"""The unit that is cached: one residual branch of one transformer layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from torch import nn

from bac.errors import ScheduleError, UnsupportedPolicyError


class BlockKind(str, Enum):
    """What a block computes: SA, CA or FFN in the paper, or a whole layer if layers are cached whole."""

    SELF_ATTENTION = "self_attention"
    CROSS_ATTENTION = "cross_attention"
    FEED_FORWARD = "feed_forward"
    LAYER = "layer"


class BlockStep(NamedTuple):
    """One block at one denoising step."""

    block: str
    step: int


@dataclass(frozen=True, eq=False)
class Site:
    """A callable of a module, and a choice among its calls.

    Attributes:
        owner: The module that holds `attribute`.
        attribute: The callable's name on `owner`.
        applies: Picks calls by their positional and keyword arguments; `None` picks every call.
    """

    owner: nn.Module
    attribute: str = "forward"
    applies: Callable[[tuple[Any, ...], dict[str, Any]], bool] | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """One residual branch, and where to intercept it.

    The interceptor shadows ``owner.attribute``: a method of a layer (``layer._ff_block``) or the ``forward`` of a
    sub-module. A block that only describes a model, as in a calibration, has no owner.

    Attributes:
        name: Unique within the denoiser, e.g. ``decoder.layers.0.ffn``.
        kind: What it computes, or its name (``"feed_forward"``); only feed-forward blocks make upstream blocks bubble.
        layer: Index of its layer, 0 the most upstream.
        owner: The module that holds `attribute`.
        attribute: The callable's name on `owner`.
        feeders: Calls that compute nothing but this block's input, if the policy inlines them; they are reused with
            the block.

    Raises:
        ScheduleError: `kind` is unknown.
    """

    name: str
    kind: BlockKind
    layer: int
    owner: nn.Module | None = None
    attribute: str = "forward"
    feeders: tuple[Site, ...] = ()

    def __post_init__(self) -> None:
        kinds = [kind.value for kind in BlockKind]
        if self.kind not in kinds:
            raise ScheduleError(f"{self.name}: kind must be one of {', '.join(kinds)}, got {self.kind!r}")
        object.__setattr__(self, "kind", BlockKind(self.kind))

    def require_owner(self) -> nn.Module:
        """The owner, checked to be fit for an interceptor.

        Raises:
            UnsupportedPolicyError: The block only describes a model, or its owner has no such callable.
        """
        if self.owner is None:
            raise UnsupportedPolicyError(
                f"{self.name}: this block has no owner to patch. Name the module that holds it: "
                "bac.Block(name, kind, layer, owner=module, attribute='forward')"
            )
        if not callable(getattr(self.owner, self.attribute, None)):
            raise UnsupportedPolicyError(
                f"{self.name}: {type(self.owner).__name__} has no method {self.attribute!r} to intercept. Name the "
                "method that computes the block: bac.Block(name, kind, layer, owner, attribute='forward')"
            )
        return self.owner

    def described(self) -> Block:
        """The same block without its modules, so that it does not keep a model alive."""
        return replace(self, owner=None, feeders=())
