"""Splits off the end of a program that runs on the host: some samplers return actions that they copied there.

A CUDA graph holds nothing that runs on the host. What copies its results, and what reads the copies, follows it.
"""

from __future__ import annotations

from dataclasses import replace

from bac.plan.program import Instruction, Program

_LONGEST = 16  # instructions; a program that goes on for longer on the host would gain little


def split_tail(program: Program) -> tuple[Program, Program | None]:
    """Move copies from the device to the host, and all that depends on them, out of a program.

    Returns:
        The program up to there; and one from its outputs to those of `program`, None if there is nothing to move or
        too much.
    """
    moved: set[int] = set()
    head: list[Instruction] = []
    tail: list[Instruction] = []
    for instruction in program.instructions:
        if not moved.isdisjoint(instruction.inputs) or _leaves_device(program, instruction):
            tail.append(instruction)
            moved.update(instruction.outputs)
        else:
            head.append(instruction)
    if not tail or len(tail) > _LONGEST:
        return program, None
    read = [value for instruction in tail for value in instruction.inputs]
    made = {value for instruction in head for value in instruction.outputs} | set(program.inputs)
    handed = tuple(dict.fromkeys(value for value in (*program.outputs, *read) if value in made))
    places = {value: place for place, value in enumerate(handed)}
    rest = replace(program, inputs=places).with_instructions(tail)
    return replace(program, outputs=handed).with_instructions(head), rest


def _leaves_device(program: Program, instruction: Instruction) -> bool:
    devices = [{program.meta[value].device.type for value in values if value in program.meta}
               for values in (instruction.inputs, instruction.outputs)]  # fmt: skip
    return devices[1] == {"cpu"} and bool(devices[0] - {"cpu"})
