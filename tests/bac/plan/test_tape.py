from __future__ import annotations

import pytest
import torch
from torch import Generator

from bac.plan.codegen import generate
from bac.plan.passes import EXACT, FAST, specialise
from bac.plan.program import interpret
from bac.plan.refusal import Refusal
from bac.plan.tape import Tape, difference, stranger
from tests.bac.plan.runs import names, taped

X = torch.tensor([1.0, 2.0, 3.0])
Y = torch.tensor([10.0, 20.0, 30.0])


def test_a_program_computes_what_was_recorded_on_other_numbers():
    program = taped(lambda x: (2 * x + 1).sum(), X)
    assert names(program) == ["mul", "add", "sum"]
    assert interpret(program, (Y,))[0].item() == 2 * 60 + 3


def test_what_hands_its_argument_back_is_not_recorded():
    program = taped(lambda x: torch.nn.functional.dropout(x.detach().contiguous(), 0.5, training=False) * 2, X)
    assert names(program) == ["mul"]


def rope(x):
    """Halves written one by one, as rotary embeddings do."""
    y = torch.empty(2, 3)
    y[..., :1] = x[:1] * 2
    y[..., 1:] = x[1:] + 1
    return y


def through_the_whole(x):
    y = x * 2
    first = y[:2]
    y.add_(1)
    return torch.cat([first, y])


def through_a_view_of_a_view(x):
    y = (x * 2).view(3, 1)
    y.t()[0, 1:].mul_(10)
    return y + 1


def through_two_views(x):
    y = x * 2
    left, right = y[:2], y[1:]
    left.add_(1)
    right.mul_(left.sum())
    return left * 100 + y[1]


def by_mask(x):
    y = x * 2
    y[y > 30] = 0.0
    return y


@pytest.mark.parametrize(
    "run", [rope, through_the_whole, through_a_view_of_a_view, through_two_views, by_mask], ids=lambda run: run.__name__
)
def test_whoever_looks_at_written_memory_sees_what_was_written(run):
    program = taped(run, X)
    for arguments in (X, Y):
        assert interpret(program, (arguments,))[0].tolist() == run(arguments).tolist()
        assert generate(program)[0]((arguments,))[0].tolist() == run(arguments).tolist()


@pytest.mark.parametrize("run", [rope, through_the_whole, through_two_views], ids=lambda run: run.__name__)
@pytest.mark.parametrize("passes", [EXACT, FAST])
def test_passes_keep_what_was_written(run, passes):
    program, _ = specialise(taped(run, X), passes)
    assert generate(program)[0]((Y,))[0].tolist() == run(Y).tolist()


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: x * float(x.sum()), "Python reads a value that depends"),
        (lambda x: x if x.sum() > 0 else -x, "Python reads a value that depends"),
        (lambda x: x * max(x.tolist()), "Python reads a value that depends"),
        (lambda x: x * float(x.numpy()[0]), "Python reads a value that depends"),
        (lambda x: x[x > 1], "a shape depends"),
        (lambda x: x.mul_(2), "writes into an argument"),
        (lambda x: x.view(3, 1).mul_(2), "writes into an argument"),
        (lambda x: PARAMETER.data.mul_(1) * x, "writes into"),
        (lambda x: x + torch.randn(3, generator=Generator()), "generator that is not an argument"),
    ],
)
def test_what_a_program_cannot_say_is_refused(run, reason):
    with pytest.raises(Refusal, match=reason):
        taped(run, X.clone(), constants=[PARAMETER])


PARAMETER = torch.ones(3)


def test_a_refused_run_still_returns_its_result():
    with torch.inference_mode(), Tape([X], []) as tape:
        result = X * float(X.sum()) + 1
    assert result.tolist() == [7, 13, 19]
    assert isinstance(tape.refusal, Refusal)


def test_draws_come_from_the_generator_given_to_the_replay():
    def run(generators):
        return torch.cat([torch.randn(2, generator=g) for g in generators])

    one, two = Generator(), Generator()
    with torch.inference_mode(), Tape([one, two], []) as tape:
        output = run([one, two])
    replayed = interpret(tape.program([output]), (Generator().manual_seed(3), Generator().manual_seed(4)))[0]
    assert torch.equal(replayed, run([Generator().manual_seed(3), Generator().manual_seed(4)]))


def test_two_recordings_of_one_program_are_equal():
    tapes = []
    for x in (X, Y):
        with torch.inference_mode(), Tape([x], []) as tape:
            torch.tensor([1.0, 2.0, 3.0]) + x
        tapes.append(tape)
    assert difference(*tapes) is stranger(*tapes) is None


HIDDEN = torch.ones(3)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (lambda: X + X, lambda: X - X, "control flow"),
        (lambda: X * 2, lambda: X * 3, "control flow"),
        (lambda: X * 2, lambda: X * 2.0, "control flow"),
        (lambda: X + X, lambda: X + X + X, "control flow"),
        (lambda: X + HIDDEN, lambda: X + HIDDEN, "neither argument, parameter nor buffer"),
        (lambda: X + torch.tensor([1.0]), lambda: X + torch.tensor([2.0]), "differs from run to run"),
    ],
)
def test_recordings_that_differ_say_where(first, second, reason):
    tapes = []
    for run in (first, second):
        with torch.inference_mode(), Tape([X], []) as tape:
            run()
        tapes.append(tape)
    assert reason in (difference(*tapes) or stranger(*tapes))


def test_an_operator_that_returns_a_tensor_and_nothing_is_recorded():
    """PyTorch's attention is one fused operator in eval mode, without gradients, with an even number of heads."""
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(1, 3, 8)
    program = taped(lambda x: attention(x, x, x, need_weights=False)[0], x, constants=list(attention.parameters()))
    assert "_native_multi_head_attention" in names(program)
    with torch.inference_mode():
        other = torch.randn(1, 3, 8)
        assert torch.equal(interpret(program, (other,))[0], attention(other, other, other, need_weights=False)[0])
