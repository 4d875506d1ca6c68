"""What a program repeats is found, outlined once, and called."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bac
import bac.plan
from bac.plan.codegen import generate
from bac.plan.inductor import compile_pieces
from bac.plan.passes.numbers import name_numbers
from bac.plan.passes.parts import drop_empty_parts
from bac.plan.program import Instruction, Ref, interpret
from bac.plan.rolling import Piece, outline
from bac.plan.rolling.repeats import repeats
from tests.bac.plan.runs import names, taped
from tests.policies.models import observations, small_policy

X = torch.tensor([1.0, 2.0, 3.0])


def found(text, *, least=1, longest=100, price=0.0, cuts=None):
    """The pieces of a text that repeat, and where."""
    places = repeats(
        [-1 if letter == "|" else ord(letter) for letter in text],
        [1] * len(text),
        [0] * (len(text) + 1) if cuts is None else cuts,
        lambda start, end: text[start:end],
        price=lambda weight: price,
        longest=longest,
        least=least,
    )
    return [(text[r.starts[0] : r.starts[0] + r.length], r.starts) for r in places]


def test_the_period_of_a_text_is_found_and_then_what_is_left():
    assert found("abcabcabcabc") == [("abc", (0, 3, 6, 9))]
    assert found("xyzabababababxyz", least=2) == [("ab", (3, 5, 7, 9, 11)), ("xyz", (0, 13))]


def test_a_piece_holds_no_place_that_must_stay_outside():
    assert found("ab|ab|ab") == [("ab", (0, 3, 6))]


def test_a_piece_is_as_long_as_its_calls_are_dear():
    assert found("abcd" * 4, longest=4)[0] == ("abcd", (0, 4, 8, 12))
    assert found("aaaaaaaa", longest=4) == [("a", tuple(range(8)))]
    assert found("aaaaaaaa", longest=4, price=1.5) == [("aaaa", (0, 4))]


def test_a_text_without_repeats_has_no_piece():
    assert found("abcdefg") == []
    assert found("") == []


@given(st.text(alphabet="abc|", max_size=60), st.integers(1, 8))
def test_pieces_never_overlap_and_are_alike(text, longest):
    taken = set()
    for piece, starts in found(text, longest=longest):
        assert 1 <= len(piece) <= longest
        assert "|" not in piece
        assert len(starts) > 1
        assert all(after - before >= len(piece) for before, after in pairwise(starts))
        for start in starts:
            assert text[start : start + len(piece)] == piece
            places = set(range(start, start + len(piece)))
            assert taken.isdisjoint(places)
            taken |= places


@given(st.integers(2, 40), st.lists(st.integers(0, 3), min_size=200, max_size=200))
def test_a_row_of_equal_steps_is_cut_into_steps_wherever_a_cut_is_cheap(num_steps, cuts):
    text = "x" + "abcd" * num_steps + "y"
    for piece, _ in found(text, cuts=cuts[: len(text) + 1]):
        assert len(piece) <= 4  # two steps would be twice as much to compile


def layered(num_steps, num_layers=3):
    """A run of steps of layers, each with a weight of its own, and what it reads."""
    weights = [torch.full((3, 3), 0.1 * layer) for layer in range(num_layers)]

    def run(x):
        for step in range(num_steps):
            hidden = x
            for weight in weights:
                hidden = hidden + torch.tanh(hidden @ weight).mul(0.5).relu().sin().cos().exp().neg()
            x = x + hidden.view(3, 1).t().reshape(3) * (0.1 + step)
        return x

    return taped(run, X, constants=weights)


def interpreted(piece):
    return lambda given: interpret(piece.program, tuple(given))


def played(outlined):
    """The outlined program's output for `X`, with every piece interpreted."""
    for piece in outlined.pieces:
        piece.function = interpreted(piece)
    return generate(outlined.program)[0]([X])[0]


@given(st.integers(2, 6), st.integers(1, 3))
def test_pieces_compute_what_the_program_computes(num_steps, num_layers):
    program = name_numbers(layered(num_steps, num_layers))
    assert torch.equal(played(outline(program)), interpret(program, (X,))[0])


def test_steps_that_differ_in_numbers_alone_are_one_piece():
    outlined = outline(name_numbers(layered(8)))
    assert [piece.num_calls for piece in outlined.pieces] == [8]
    assert len(outline(layered(8)).pieces) > 0  # as long as they differ, layers repeat at most


def test_a_longer_run_has_no_more_to_compile():
    few, many = (outline(name_numbers(layered(steps, num_layers=6))) for steps in (10, 40))
    assert [len(p.program.instructions) for p in few.pieces] == [len(p.program.instructions) for p in many.pieces]
    assert many.program.num_operations < few.program.num_operations + 40


def test_everything_that_a_piece_returns_has_memory_of_its_own():
    def run(x):
        for _ in range(12):
            x = torch.stack([x, x.exp()]).sin().cos().tanh().neg().exp()[1:].view(3)  # a view crosses every cut
        return x

    program = taped(run, X)
    outlined = outline(program)
    assert outlined.pieces
    for piece in outlined.pieces:
        assert all(piece.program.meta[value].root == value for value in piece.program.outputs)
    assert torch.equal(played(outlined), interpret(program, (X,))[0])


def test_nothing_writes_into_what_a_piece_returned():
    """It may be an argument of the piece: a compiler sees through an addition of zero."""
    constant = torch.ones(3)
    program = taped(lambda x: x + (constant + 0) * 2, X, constants=[constant])
    zero, *rest = program.instructions
    piece = Piece(replace(program, instructions=(zero,)), zero.inputs, function=lambda given: tuple(given))
    call = Instruction(piece, (Ref(zero.inputs[0]),), (), zero.outputs, sequence=True)
    replay = generate(program.with_instructions((call, *rest)))[0]
    assert [replay([X])[0].tolist() for _ in range(2)] == [[3.0, 4.0, 5.0]] * 2
    assert constant.tolist() == [1.0, 1.0, 1.0]


def test_draws_stay_outside_and_in_order():
    def run(x):
        for _ in range(8):
            x = x.sin().cos().tanh().exp().neg().relu() + torch.randn(3)
        return x

    outlined = outline(taped(run, X))
    assert names(outlined.program).count("randn") == 8
    assert all("randn" not in names(piece.program) for piece in outlined.pieces)
    torch.manual_seed(0)
    expected = run(X)
    torch.manual_seed(0)
    assert torch.equal(played(outlined), expected)


def test_numbers_of_a_solver_become_constants():
    def run(x):
        x = torch.add(x, x, alpha=0.25)
        x = torch.sub(x, x * 0.5, alpha=0.5)
        return torch.clamp(x, -2.5, 2.5) / 4.0

    program = taped(run, X)
    named = name_numbers(program)
    assert names(named) == ["addcmul", "mul", "addcmul", "clamp", "div"]
    assert not any(isinstance(argument, float) for i in named.instructions for argument in i.args)
    torch.testing.assert_close(interpret(named, (X,))[0], interpret(program, (X,))[0])


def test_a_product_that_is_scaled_and_added_keeps_its_sum():
    matrix = torch.eye(3)
    program = taped(lambda x: torch.addmm(x, x, matrix, alpha=-0.5), torch.ones(3, 3), constants=[matrix])
    named = name_numbers(program)
    assert names(named) == ["mm", "addcmul"]
    assert torch.equal(interpret(named, (torch.ones(3, 3),))[0], torch.full((3, 3), 0.5))


def test_numbers_of_sixteen_bits_are_left_alone():
    program = taped(lambda x: torch.add(x, x, alpha=0.25), X.bfloat16())
    assert names(name_numbers(program)) == ["add"]


def test_what_holds_for_one_layout_stays_outside_of_pieces():
    def run(x):
        for _ in range(8):
            x = x.sin().cos().tanh().exp().neg().relu().as_strided((3,), (1,), 0)
        return x

    outlined = outline(taped(run, X))
    assert names(outlined.program).count("as_strided") == 8
    assert outlined.pieces


def test_a_join_of_one_part_is_a_copy_and_empty_parts_are_left_out():
    empty = torch.empty(0)

    def run(x):
        turned = torch.cat([empty, x.view(1, 3).t()])
        return torch.cat([empty, turned, turned], dim=-1)

    program = drop_empty_parts(taped(run, X, constants=[empty]))
    assert names(program) == ["view", "t", "clone", "cat"]
    assert [len(i.args[0]) for i in program.instructions if i.name == "cat"] == [2]
    assert torch.equal(interpret(program, (X,))[0], run(X))
    assert interpret(program, (X,))[0].stride() == run(X).stride()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inductor_compiles_each_piece_once_and_the_run_is_the_same():
    program = layered(8)
    rolled = compile_pieces(program)
    calls = [instruction.operator for instruction in rolled.instructions if instruction.name == "piece"]
    assert len(calls) == 8
    assert len(set(map(id, calls))) == 1
    torch.testing.assert_close(generate(rolled)[0]([X])[0], interpret(program, (X,))[0])


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["DDPM", "DDIM"])
def test_a_denoiser_has_as_much_to_compile_for_twice_the_steps(solver, monkeypatch):
    pieces = []

    def instead(piece, caller):  # of the compiler, which has its own tests
        pieces.append(piece)
        return interpreted(piece)

    monkeypatch.setattr("bac.plan.inductor._compile", instead)
    sizes = []
    for num_steps in (8, 16):
        pieces.clear()
        policy = small_policy()
        policy.diffusion.use_solver(solver, num_steps)
        bac.wrap(policy, replay=bac.Replay(exact=False, compile=True, record="ahead"))
        assert bac.plan.record(policy, observations(1)).skipped == ()
        sizes.append([piece.program.num_operations for piece in pieces])
    assert sizes[0] == sizes[1]
    assert sizes[0]
