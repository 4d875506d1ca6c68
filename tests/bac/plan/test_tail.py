"""The end of a program on the host follows a CUDA graph. No GPU is needed to see what is moved."""

from __future__ import annotations

from dataclasses import replace

import torch

from bac.plan.codegen import generate
from bac.plan.program import Program
from bac.plan.tail import split_tail
from tests.bac.plan.runs import names, taped

X = torch.tensor([[1.0, 2.0]])


def on_gpu_but_for(program: Program, hosted: set[int]) -> Program:
    """The program, as if it ran on a GPU, with some values on the host."""
    gpu = torch.device("cuda")
    meta = {v: m if v in hosted else replace(m, device=gpu) for v, m in program.meta.items()}
    return replace(program, meta=meta)


def test_a_copy_to_the_host_and_what_follows_are_moved():
    program = taped(lambda x: ((2 * x).abs() + 1, 2 * x), X)
    last = program.instructions[2].outputs[0]  # as if `+ 1` copied to the host
    head, tail = split_tail(on_gpu_but_for(program, {last}))
    assert names(head) == ["mul", "abs", "mul"] and names(tail) == ["add"]
    expected = generate(program)[0]((X,))
    found = generate(tail)[0](generate(head)[0]((X,)))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_program_without_such_copies_is_left_alone():
    program = on_gpu_but_for(taped(lambda x: 2 * x, X), set())
    assert split_tail(program) == (program, None)


def test_a_program_that_goes_on_for_long_on_the_host_is_left_alone():
    def run(x):
        for _ in range(30):
            x = x * 2
        return x

    program = taped(run, X)
    first = program.instructions[0].outputs[0]
    long = on_gpu_but_for(program, {first})
    assert split_tail(long) == (long, None)
