"""Notices, before a replay, that the policy is no longer the recorded one.

A plan has weights, solver and settings baked in. `Staleness` looks at everything that the recorded run could read:

- every attribute of every module on the way, by identity, and new attributes too: a ``forward`` set on an instance,
  PEFT's private names;
- items of the lists, dictionaries and objects within them;
- class attributes and global variables that the executed code names;
- the version, the address and some numbers of every weight.

Where Python has no tags (`bac.plan.tags`), the code of functions, class attributes that no code names, and most of
what belongs to Python, PyTorch and `bac` are compared in turns (`bac.plan.visits`): a change there is noticed within
eight chunks, any other one by the next chunk.

What the run itself replaces (a noise scheduler's timesteps) is left out; a run that decides by what it counts is
refused (`bac.plan.counters`). Nobody can see from Python: a variable of a closure, an item of a container of more than
500, the inside of a C++ extension, a file, an environment variable, and a write to a few numbers of a weight through
``parameter.data``. Call `bac.wrap` again after such a change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from bac.plan.counters import counter
from bac.plan.places import Place
from bac.plan.reads import IMPLICIT, Reads
from bac.plan.refusal import Refusal
from bac.plan.state import State
from bac.plan.walk import Walk
from bac.plan.watch import Watch
from bac.plan.weights import Weights

Spot = tuple[str, Any]  # path of a holder, and a name in it; the name None stands for new and lost items of a list


@dataclass(frozen=True)
class Change:
    """A difference to the recorded policy.

    Attributes:
        reason: What happened, in words.
        idle: Where something changed that the executed code does not name, so that the run hardly depends on it; and
            what happened there, in words.
    """

    reason: str
    idle: Mapping[Spot, str] = field(default_factory=dict)


class Staleness:
    """Remembers what a sampler reads.

    Args:
        owner: Module whose weights a run reads.
        held: Other objects that a run reads: the noise scheduler of a solver's interceptor, for one.
        swapped: Attributes whose own value a run does not read, because a solver's interceptor replaces it meanwhile:
            object and name.
        reads: What the code of a run names.
        ignored: Places that changed before without effect.

    Attributes:
        tensors: Every tensor that lies in a watched place.
        weights: The weights that the recorded run read.
        state: What modules, `held` and what lies in them remembered at the first look.
    """

    def __init__(
        self,
        owner: nn.Module,
        held: Sequence[object] = (),
        swapped: Sequence[tuple[object, str]] = (),
        *,
        reads: Reads | None = None,
        ignored: Collection[Spot] = (),
    ) -> None:
        self.reads = reads or Reads()
        self._ignored = ignored
        self._look = partial(_places, owner, held, swapped, self.reads)
        self._names = self.reads.names
        places, num_own = self._look()
        self._watch = Watch(places)
        self.state = State(places[:num_own])
        self.weights: list[Tensor] = []
        self._weights = Weights()
        self.tensors = [t for place in self._watch.places for value in place.values for t in _tensors(value)]

    def settle(self, weights: Iterable[Tensor]) -> None:
        """Forget what the runs since the first look replaced; remember the weights that they read.

        Raises:
            Refusal: The runs count something, and decide by it.
        """
        before = {place.key: place for place in self._watch.places}
        now = [place for place in self._look()[0] if place.key in before]
        if (found := counter(before.values(), now, self.reads.codes.keys())) is not None:
            raise Refusal(f"every run changes a number that the next run reads: {found}; a replay would not count")
        kept = [place.within(before[place.key], self._ignored) for place in now]
        self._watch = Watch([place for place in kept if place is not None])
        self.weights = list(weights)
        self._weights = Weights(self.weights)

    def difference(self) -> Change | None:
        """The change since `settle`; None if there is none."""
        if not self._watch.is_same():
            if found := list(self._watch.differences()):
                return self._change(found)
            self._watch = Watch([place.with_notes() for place in self._watch.places])
        written = self._weights.difference()
        return None if written is None else Change(written)

    def is_restored(self) -> bool:
        """Whether all is as it was at `settle`, what is compared in turns too. Takes as long as some chunks."""
        return next(self._watch.differences(), None) is None and self._weights.are_same()

    def _change(self, found: Sequence[tuple[str, Any, str]]) -> Change:
        """One change out of all: the reason is one that the run may depend on, if there is one."""
        idle = {(path, name): reason for path, name, reason in found if not self._is_named(path, name)}
        named = (reason for path, name, reason in found if (path, name) not in idle)
        return Change(next(named, found[0][2]), idle)

    def _is_named(self, path: str, name: Any) -> bool:
        """Whether the code reads what changed: the attribute, or the attribute whose item it is."""
        holder = path.partition("[")[0].rpartition(".")[2]
        return holder in self._names or name in self._names or _is_implicit(name)


def state_of(owner: nn.Module) -> State:
    """What a module and its parts remember; of one that cannot be looked into, nothing."""
    try:
        return Staleness(owner).state
    except Refusal:
        return State(())


def _tensors(value: Any) -> Iterator[Tensor]:
    """A tensor, or those in a tuple, which is no place of its own since its items stay."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)


def _is_implicit(name: Any) -> bool:
    """Whether Python or PyTorch reads an attribute without any code that names it."""
    return name in IMPLICIT or (isinstance(name, str) and name.startswith("__") and name.endswith("__"))


def _places(
    owner: nn.Module, held: Sequence[object], swapped: Sequence[tuple[object, str]], reads: Reads
) -> tuple[list[Place], int]:
    """All places, and how many of them, the first ones, belong to the modules and to what is held."""
    walk = Walk(reads, swapped)
    walk.module(type(owner).__name__, owner)
    for thing in held:
        walk.thing(type(thing).__name__, thing, depth=0)
    num_own = len(walk.places)
    walk.variables(reads)
    walk.classes()
    return walk.places, num_own
