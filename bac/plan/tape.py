"""Records one denoising run as a straight-line program.

Every ATen operator that runs while the tape is on becomes an instruction. Python is not recorded, so its decisions are
baked in: the number of steps, the blocks that a schedule reuses, the solver's coefficients. That is sound as long as no
decision depends on the run's arguments or random draws. The tape therefore tracks, of every value, what it depends on.
If Python reads one that depends on nothing but small arguments of whole numbers (tokens, masks, sizes of pictures),
those are *pinned*: the program holds for their recorded numbers only. If it reads any other, the run is refused.
Invisible effects (a write through another library) are caught by recording twice, on different arguments, and
comparing.

Recording happens under `torch.inference_mode`, where composite operators arrive whole: `linear`, not `t` and `addmm`.
Parameters stay as they are, `requires_grad` included: internally, `linear` treats a parameter differently from a plain
tensor, and rounds differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bac.plan.call import LITERALS, Call, Kind
from bac.plan.program import Instruction, Meta, Program, Ref
from bac.plan.refusal import Refusal
from bac.plan.tensor_map import TensorMap

aten = torch.ops.aten

_DRAWS = -1  # beside the positions of arguments: a random draw
_NONE: frozenset[int] = frozenset()
_COUNTING = (torch.bool, torch.int16, torch.int32, torch.int64)
_LARGEST_PINNED = 1 << 16  # numbers in an argument; they are compared before every replay


class OutOfPlace:
    """Turns an operator that writes into its first argument into one that writes into a copy."""

    def __init__(self, operator: Callable[..., Any]) -> None:
        self.operator = operator
        self.__name__ = operator.__name__

    def __call__(self, target: Tensor, *args: Any, **options: Any) -> Any:
        return self.operator(target.clone(), *args, **options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutOfPlace) and self.operator is other.operator

    def __hash__(self) -> int:
        return hash(self.operator)


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operators of one run.

    Args:
        leaves: The arguments of the run, flattened: tensors, generators and others.
        constants: Tensors that the run may read although they are not arguments: parameters, buffers and the like.

    Attributes:
        refusal: Why recording was given up; `None` while it goes on.
        pinned: Positions of the arguments whose numbers Python read.
        borrowed: Parameters, buffers and the like that the run read, by value.
        strangers: Other tensors that the run read and that are not arguments, by value.
    """

    def __init__(self, leaves: Sequence[Any], constants: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refusal: Refusal | None = None
        self.instructions: list[Instruction] = []
        self.inputs: dict[int, int] = {}
        self.constants: dict[int, Tensor] = {}
        self.borrowed: dict[int, Tensor] = {}
        self.strangers: dict[int, Tensor] = {}
        self.meta: dict[int, Meta] = {}
        self.pinned: set[int] = set()
        self._leaves = leaves
        self._sources: dict[int, frozenset[int]] = {}  # what values depend on: positions of arguments, and `_DRAWS`
        self._values = TensorMap[int]()
        self._rewritten: dict[int, int] = {}  # root of overwritten memory to the root that holds its contents now
        self._known = {id(tensor): tensor for tensor in constants}
        self._generators: dict[int, int] = {}
        self._next = 0
        for place, leaf in enumerate(leaves):
            self._take_in(place, leaf)

    def program(self, outputs: Sequence[Tensor]) -> Program:
        """The recorded program, with `outputs` as its outputs. Pinned arguments are constants of it.

        Raises:
            Refusal: The run did something that a program cannot express.
        """
        if self.refusal is not None:
            raise self.refusal
        values = tuple([self._value(output) for output in outputs])
        inputs = {value: place for value, place in self.inputs.items() if place not in self.pinned}
        kept = {value: self._leaves[p].detach().clone() for value, p in self.inputs.items() if p in self.pinned}
        return Program(tuple(self.instructions), inputs, {**self.constants, **kept}, values, self.meta)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import PyTorch's compiler, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        call = self._read(func, args, options)
        result = func(*args, **options)
        if call is not None:
            self._write_down(call, args, result)
        return result

    def _read(self, func: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Call | None:
        """Encode the next call, or return `None` once recording was given up; the run itself goes on."""
        if self.refusal is not None:
            return None
        try:
            named = tuple([(name, self._encode(option)) for name, option in options.items()]) if options else ()
            call = Call(func, Kind.of(func), self._encode_all(args), named)
            if call.kind.reads or call.kind.shapes:
                self._pin(call)
        except Refusal as refusal:
            self.refusal = refusal
            return None
        return call

    def _pin(self, call: Call) -> None:
        """Pin the arguments that the call makes Python depend on.

        Raises:
            Refusal: It makes Python depend on what cannot be pinned.
        """
        for value in call.deciding(self.meta):
            self._pin_sources(value, "Python reads a value that" if call.kind.reads else "a shape", str(call.operator))

    def _pin_sources(self, value: int, what: str, reader: str) -> None:
        sources = self._sources.get(value, _NONE)
        if any(place == _DRAWS or not _may_be_pinned(self._leaves[place]) for place in sources):
            raise Refusal(f"{what} depends on the arguments or the noise ({reader})")
        self.pinned |= sources

    def peek(self, tensor: Tensor, reader: str) -> None:
        """Take note that Python reads a tensor's numbers past the operators (`bac.plan.peeks`)."""
        if self.refusal is None:
            try:
                self._pin_sources(self._value(tensor), "Python reads a value that", reader)
            except Refusal as refusal:
                self.refusal = refusal

    def _write_down(self, call: Call, args: tuple[Any, ...], result: Any) -> None:
        try:
            if call.kind.same:
                self._values.set(result, self._value(args[0]))
            elif call.kind.writes:
                self._overwrite(call, args[0], result)
            else:
                self._append(call, args, result)
        except Refusal as refusal:
            self.refusal = refusal

    def _take_in(self, place: int, leaf: Any) -> None:
        if isinstance(leaf, Generator):
            known = self._generators.get(_cdata(leaf))
        elif isinstance(leaf, Tensor):
            known = self._values.get(leaf)
        else:
            return
        if known is None:
            value = self._new_value()
            self.inputs[value] = place
            if isinstance(leaf, Tensor):
                self._define(leaf, value, value)
                self._sources[value] = frozenset({place})
            else:
                self._generators[_cdata(leaf)] = value

    def _append(self, call: Call, args: tuple[Any, ...], result: Any) -> None:
        sequence = isinstance(result, (tuple, list))
        results = tuple(result) if sequence else (result,)
        if not all(part is None or isinstance(part, Tensor) for part in results):
            return  # a Python number computed from constants is baked in
        if not sequence and self._values.get(result) is not None:
            return  # the operator returned its own argument, as `dropout` does in eval mode
        outputs = tuple([self._new_value() for _ in results])
        roots = {} if call.kind.fresh else {_memory(t): self.meta[self._value(t)].root for t in _tensors(args)}
        for value, part in zip(outputs, results, strict=True):
            if part is None:  # fused attention returns no weights unless asked; nothing can read it
                self.meta[value] = Meta.of(_NOTHING, value)
                continue
            self._define(part, value, roots.get(_memory(part), value) if roots else value)
        self._keep(call, outputs, sequence=sequence)

    def _overwrite(self, call: Call, target: Tensor, result: Any) -> None:
        """Record a write as a new value of the memory. Later reads of any view see the new value."""
        func = call.operator
        if not isinstance(target, Tensor) or result is not target:
            raise Refusal(f"{func} writes into something other than its first argument")
        root = self.meta[self._value(target)].root
        if root in self.inputs or root in self.borrowed:
            what = "an argument" if root in self.inputs else "a parameter, a buffer or a cache of the policy"
            raise Refusal(f"{func} writes into {what}")
        whole, part = self.meta[root], Meta.of(target, root)
        if part == whole:
            self._rewritten[root] = value = self._emit(call, whole, OutOfPlace(func))
            self._values.set(target, value)
            return
        if whole.offset:
            raise Refusal(f"{func} writes into part of a tensor that begins inside its memory")
        written = self._written(call, target)
        scatter = aten.as_strided_scatter.default
        call = Call.of(scatter, Ref(root), Ref(written), part.shape, part.stride, part.offset)
        self._rewritten[root] = self._emit(call, whole)

    def _written(self, call: Call, target: Tensor) -> int:
        """The value of `target` after a write, with memory of its own."""
        if call.operator is aten.copy_.default and len(call.inputs) == 2:
            source = self.meta[call.inputs[1]]
            if (source.shape, source.dtype, source.device) == (tuple(target.shape), target.dtype, target.device):
                return call.inputs[1]
        return self._emit(call, Meta.of(torch.empty_like(target), -1), OutOfPlace(call.operator))

    def _emit(self, call: Call, layout: Meta, stand_in: OutOfPlace | None = None) -> int:
        """Append an instruction whose result has memory of its own."""
        value = self._new_value()
        self.meta[value] = replace(layout, root=value)
        self._keep(call, (value,), stand_in)
        return value

    def _keep(
        self, call: Call, outputs: tuple[int, ...], stand_in: OutOfPlace | None = None, *, sequence: bool = False
    ) -> None:
        """Append an instruction that defines `outputs`; `stand_in`, if given, replaces its operator."""
        draws = call.kind.random and call.draws
        found = [self._sources[value] for value in call.numbers if value in self._sources]
        if found or draws:
            sources = _NONE.union(*found, (_DRAWS,) if draws else ())
            self._sources.update(dict.fromkeys(outputs, sources))
        operator = stand_in or call.operator
        self.instructions.append(Instruction(operator, call.args, call.options, outputs, sequence, draws))

    def _encode(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return Ref(self._value(argument))
        if isinstance(argument, Generator):
            if _cdata(argument) not in self._generators:
                raise Refusal("it draws from a random generator that is not an argument of the sampler")
            return Ref(self._generators[_cdata(argument)])
        return self._encode_all(argument) if isinstance(argument, (tuple, list)) else argument

    def _encode_all(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        return tuple([part if type(part) in LITERALS else self._encode(part) for part in arguments])

    def _value(self, tensor: Tensor) -> int:
        known = self._values.get(tensor)
        if known is not None:
            return known if self.meta[known].root not in self._rewritten else self._seen_again(tensor, known)
        value = self._new_value()
        if id(tensor) in self._known:
            self.borrowed[value] = tensor
            self.constants[value] = tensor
        else:
            self.strangers[value] = tensor
            self.constants[value] = tensor.detach().clone()  # a copy, to compare with the second recording's
        self._define(tensor, value, value)
        return value

    def _seen_again(self, tensor: Tensor, known: int) -> int:
        """The current value of a tensor whose memory was overwritten: the same view of the new contents."""
        root = self.meta[known].root
        while root in self._rewritten:
            root = self._rewritten[root]
        layout = Meta.of(tensor, root)
        if layout == self.meta[root]:
            self._values.set(tensor, root)
            return root
        value = self._new_value()
        self._values.set(tensor, value)
        self.meta[value] = layout
        view = aten.as_strided.default
        self._keep(Call.of(view, Ref(root), layout.shape, layout.stride, layout.offset), (value,))
        return value

    def _define(self, tensor: Tensor, value: int, root: int) -> None:
        self._values.set(tensor, value)
        self.meta[value] = Meta.of(tensor, root)

    def _new_value(self) -> int:
        self._next += 1
        return self._next - 1


_NOTHING = torch.empty(0)


def difference(first: Tape, second: Tape) -> str | None:
    """Compare two recordings of a run on different arguments. Returns how the programs differ, or `None`.

    What else they read, `stranger` compares.
    """
    if len(first.instructions) != len(second.instructions):
        counts = f"{len(first.instructions)} and {len(second.instructions)}"
        return f"its control flow depends on its arguments ({counts} operators in two runs)"
    for place, (one, other) in enumerate(zip(first.instructions, second.instructions, strict=True)):
        if (one.expression, one.outputs) != (other.expression, other.outputs):
            return f"its control flow depends on its arguments (operator {place}, {one.operator}, differs in two runs)"
    if first.pinned != second.pinned:
        return "its control flow depends on its arguments (Python reads other ones in two runs)"
    return None


def stranger(first: Tape, second: Tape) -> str | None:
    """What two recordings of one program read that is no argument and that a plan cannot hold; `None` if nothing."""
    if found := second.strangers.keys() - first.strangers.keys():
        return f"it reads a tensor {list(second.strangers[min(found)].shape)} that every run replaces"
    for value, tensor in first.strangers.items():
        if second.strangers.get(value) is tensor:
            return f"it reads a tensor {list(tensor.shape)} that is neither argument, parameter nor buffer"
        if value not in second.strangers or not torch.equal(first.constants[value], second.constants[value]):
            return f"it reads a tensor {list(tensor.shape)} that differs from run to run and is not an argument"
    return None


def _may_be_pinned(leaf: Tensor) -> bool:
    """Whether an argument may be the same in many chunks: tokens, a mask or sizes, but no picture or measurement."""
    return leaf.dtype in _COUNTING and leaf.numel() <= _LARGEST_PINNED


def _tensors(argument: Any) -> Iterator[Tensor]:
    if isinstance(argument, Tensor):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for part in argument:
            yield from _tensors(part)


def _cdata(generator: Generator) -> int:
    """Identity of a generator: PyTorch passes operators a new Python object for it every time."""
    return int(generator._cdata)  # type: ignore[attr-defined]


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
