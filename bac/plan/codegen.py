"""Turns a program into one flat Python function.

The function has one line per instruction: no modules, no scheduler objects, no dictionaries. A local variable is
reassigned after its value's last read. A buffer is therefore freed at its last use, or overwritten where the operator
can, so the peak memory is that of the eager run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bac.plan.operators import DIRECT, IN_PLACE
from bac.plan.program import Instruction, Program, Ref
from bac.plan.rolling import Piece

Function = Callable[[Sequence[Any]], tuple[Any, ...]]


def generate(program: Program) -> tuple[Function, str]:
    """Compile a program.

    Returns:
        A function from the flattened arguments of the sampler to the program's outputs, and its source.
    """
    writer = _Writer(program)
    source = "\n".join(writer.lines()) + "\n"
    namespace = writer.namespace
    exec(compile(source, "<bac plan>", "exec"), namespace)  # noqa: S102
    return namespace["replay"], source


class _Writer:
    """Writes the function; `namespace` holds the operators, constants and literals that its text names."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.namespace: dict[str, Any] = {f"c{value}": tensor for value, tensor in program.constants.items()}
        self._functions: dict[Any, str] = {}
        self._names = {value: f"c{value}" for value in program.constants}
        self._free: list[str] = []
        self._num_locals = 0
        self._last_read = _last_reads(program, {value: value for value in program.meta})
        roots = {value: meta.root for value, meta in program.meta.items()}
        self._memory_read = _last_reads(program, roots)
        # What a compiled piece returns may be its argument, or one tensor twice: the compiler sees through copies.
        self._owned = {v for i in program.instructions if not isinstance(i.operator, Piece) for v in i.outputs}

    def lines(self) -> Iterator[str]:
        """The function's source, line by line."""
        yield "def replay(leaves):"
        for value, place in self.program.inputs.items():
            self._names[value] = self._take()
            yield f"    {self._names[value]} = leaves[{place}]"
        for place, instruction in enumerate(self.program.instructions):
            yield f"    {self._statement(place, instruction)}"
        returned = [f"{self._names[value]}," for value in self.program.outputs]
        yield f"    return ({' '.join(returned)})"

    def _statement(self, place: int, instruction: Instruction) -> str:
        if self._may_overwrite(place, instruction):
            function = self._function(IN_PLACE[instruction.operator], f"{instruction.name}_")
        else:
            function = self._function(DIRECT.get(instruction.operator, instruction.operator), instruction.name)
        arguments = [self._text(argument) for argument in instruction.args]
        arguments += [f"{name}={self._text(option)}" for name, option in instruction.options]
        # Names of dead inputs are freed before outputs are named, so that an output may take one.
        for value in dict.fromkeys(instruction.inputs):
            if self._last_read.get(value) == place and value not in self.program.constants:
                self._free.append(self._names[value])
        for value in instruction.outputs:
            self._names[value] = self._take()
        targets = ", ".join(self._names[value] for value in instruction.outputs)
        for value in instruction.outputs:
            if value not in self._last_read:
                self._free.append(self._names[value])
        comma = "," if instruction.sequence else ""
        return f"{targets}{comma} = {function}({', '.join(arguments)})"

    def _may_overwrite(self, place: int, instruction: Instruction) -> bool:
        """Whether the result may overwrite the first argument.

        It may if that argument owns its memory, has the result's layout, and is read here once, for the last time.
        """
        first = instruction.args[0] if instruction.args else None
        if instruction.operator not in IN_PLACE or not isinstance(first, Ref) or first.value not in self._owned:
            return False
        meta, result = self.program.meta[first.value], self.program.meta[instruction.outputs[0]]
        same_layout = (meta.shape, meta.stride, meta.dtype) == (result.shape, result.stride, result.dtype)
        others = [self.program.meta[value].root for value in instruction.inputs[1:] if value in self.program.meta]
        dies = self._memory_read.get(meta.root) == place
        return same_layout and dies and meta.root == first.value and meta.root not in others

    def _take(self) -> str:
        if self._free:
            return self._free.pop()
        self._num_locals += 1
        return f"t{self._num_locals - 1}"

    def _function(self, function: Callable[..., Any], name: str) -> str:
        if function not in self._functions:
            unique = name if name not in self.namespace else f"{name}_{len(self._functions)}"
            self.namespace[unique] = function
            self._functions[function] = unique
        return self._functions[function]

    def _text(self, argument: Any) -> str:
        if isinstance(argument, Ref):
            return self._names[argument.value]
        if isinstance(argument, tuple):
            return f"({''.join(self._text(part) + ', ' for part in argument)})"
        if argument is None or isinstance(argument, (bool, int, str)):
            return repr(argument)
        if isinstance(argument, float) and math.isfinite(argument):  # inf and nan have no literal in Python
            return repr(argument)
        name = f"k{len(self.namespace)}"
        self.namespace[name] = argument
        return name


def _last_reads(program: Program, owner: dict[int, int]) -> dict[int, int]:
    """Place of the last read of each owner's memory; outputs are read after all instructions."""
    last: dict[int, int] = {}
    for place, instruction in enumerate(program.instructions):
        for value in instruction.inputs:
            last[owner.get(value, value)] = place
    for value in program.outputs:
        last[owner.get(value, value)] = len(program.instructions)
    return last
