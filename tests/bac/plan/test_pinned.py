"""Arguments whose numbers Python reads: a plan holds for these numbers, and other ones never get its actions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bac
import bac.plan
from bac.caching.block import BlockKind
from bac.plan.codegen import generate
from bac.plan.passes import EXACT, specialise
from bac.plan.refusal import Refusal
from bac.plan.tape import Tape
from tests.bac.plan.runs import FIRST
from tests.bac.plan.runs import taped as taped_program

X = torch.tensor([1.0, 2.0, 3.0])
MASK = torch.tensor([True, False, True])
TOKENS = torch.tensor([5, 7, 2])


def taped(function: Any, *leaves: Tensor) -> Tape:
    with torch.inference_mode(), Tape(leaves, []) as tape:
        function(*leaves)
    if tape.refusal is not None:
        raise tape.refusal
    return tape


@pytest.mark.parametrize(
    ("run", "pinned"),
    [
        (lambda x, mask: x[mask], {1}),
        (lambda x, mask: torch.masked_select(x, mask), {1}),
        (lambda x, mask: x * int(mask.sum()), {1}),
        (lambda x, mask: x if mask.all() else -x, {1}),
        (lambda x, mask: x[mask.nonzero()], {1}),
        (lambda x, mask: x.repeat_interleave(mask.long()), {1}),
        (lambda x, mask: x[mask.long()], set()),  # an index of whole numbers decides no shape
        (lambda x, mask: x.masked_fill(mask, 0.0), set()),
        (lambda x, mask: x * mask.expand_as(x * 2).sum().item(), {1}),  # of `x * 2` only the shape counts
        (lambda x, mask: x * torch.ones_like(x).sum().item(), set()),
    ],
)
def test_what_python_reads_of_a_mask_pins_it(run, pinned):
    assert taped(run, X, MASK).pinned == pinned


@pytest.mark.parametrize(
    ("run", "leaf"),
    [
        (lambda x, mask: x * (mask * x).sum().item(), MASK),  # depends on the measurement, too
        (lambda x, noisy: x * (noisy + torch.randint(2, (3,))).sum().item(), TOKENS),
        (lambda x, picture: x * int(picture.max()), torch.ones(3, dtype=torch.uint8)),
        (lambda x, large: x * int(large[0]), torch.ones(1 << 17, dtype=torch.int64)),
        (lambda x, _: x.repeat_interleave(x.long()), MASK),
        (lambda x, _: torch.where(x > 1)[0], MASK),
    ],
)
def test_what_cannot_be_the_same_in_many_chunks_is_not_pinned(run, leaf):
    with pytest.raises(Refusal, match="depends on the arguments or the noise"):
        taped(run, X, leaf)


def _overwritten(x: Tensor, mask: Tensor) -> Tensor:
    """As policies lay embeddings in the places of their tokens."""
    y = 2 * x
    y[mask] = torch.tensor([7.0, 8.0])
    return y


class Reader(nn.Module):
    """Adds up the observations that a mask lets through, and branches on the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Identity()
        self.eval()

    def reset(self) -> None:
        pass

    def predict_action_chunk(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.block(batch["obs"])
        if not batch["mask"].all():
            x = x[batch["mask"]]
            if batch["tokens"][0] == 5:  # read only where the mask lacks one
                x = -x
        return x.sum() + torch.zeros(1)


def reader(replay: bac.Replay = FIRST) -> Reader:
    policy = Reader()
    block = bac.Block("same", BlockKind.FEED_FORWARD, 0, policy.block)
    return bac.wrap(policy, blocks=[block], replay=replay)


def batch(mask: tuple[int, ...] = (1, 0, 1), first: int = 5) -> dict[str, Tensor]:
    return {"obs": X + 1, "mask": torch.tensor(mask, dtype=torch.bool), "tokens": torch.tensor([first, 7])}


def chunk(policy: nn.Module, *args: Any) -> float:
    with torch.no_grad():
        return policy.predict_action_chunk(batch(*args)).item()


def test_every_change_of_a_number_that_python_reads_is_followed():
    policy, untouched = reader(), Reader()
    calls = [((1, 0, 1), 5), ((1, 0, 1), 6), ((1, 1, 1), 5), ((0, 1, 1), 5), ((1, 0, 1), 5), ((1, 1, 1), 6)]
    for args in 2 * calls:
        assert chunk(policy, *args) == chunk(untouched, *args)
    assert len(bac.plan.plans(policy)) == 5
    assert bac.describe(policy).num_replays == 12 - 5


def test_a_plan_says_which_arguments_it_holds_for():
    policy = reader()
    chunk(policy)
    (plan,) = bac.plan.plans(policy)
    assert (
        plan.arguments == "[3] float32 on cpu, [3] bool on cpu with these numbers, [2] int64 on cpu with these numbers"
    )
    assert plan.pinned == (1, 2)


def test_an_argument_that_only_a_later_run_reads_is_pinned_from_then_on():
    policy = reader()
    assert chunk(policy, (1, 1, 1), 5) == 9  # this run reads the mask alone
    assert chunk(policy, (1, 1, 1), 6) == 9
    assert [plan.pinned for plan in bac.plan.plans(policy)] == [(1,)]
    assert chunk(policy, (1, 0, 1), 5) == -6
    assert chunk(policy, (1, 0, 1), 6) == 6
    assert chunk(policy, (1, 1, 1), 6) == 9


def test_other_numbers_than_those_recorded_ahead_are_interpreted_and_told_once(caplog):
    policy = reader(bac.Replay(record="ahead"))
    bac.plan.record(policy, batch())
    with caplog.at_level("WARNING", logger="bac.plan"):
        assert [chunk(policy), chunk(policy, (1, 1, 1)), chunk(policy, (1, 1, 1)), chunk(policy)] == [-6, 9, 9, -6]
    assert caplog.text.count("Python reads other numbers from its arguments than in the run that was recorded") == 1
    assert bac.describe(policy).num_replays == 2


def test_an_argument_that_the_caller_writes_into_is_compared_by_its_numbers():
    policy, seen = reader(), batch()
    with torch.no_grad():
        assert policy.predict_action_chunk(seen).item() == -6
        seen["mask"][1] = True
        assert policy.predict_action_chunk(seen).item() == 9


@pytest.mark.parametrize(
    "run",
    [
        lambda x, mask: x[mask],
        lambda x, mask: x.expand(2, 3)[:, mask],
        lambda x, mask: x.expand(2, 3)[mask.expand(2, 3)],
        lambda x, mask: (2 * x).index_put((mask,), x[mask] + 1),
        _overwritten,
    ],
)
def test_a_plan_does_not_look_for_the_places_of_a_mask_that_it_knows(run):
    def called(x: Tensor, mask: Tensor) -> Tensor:
        mask.sum().item()
        return run(x, mask)

    with torch.inference_mode():
        program, _ = specialise(taped_program(called, X, MASK), EXACT)
        found = generate(program)[0]((X + 1, MASK))[0]
    assert torch.equal(found, run(X + 1, MASK))
    assert not any(constant.dtype == torch.bool for constant in program.constants.values())
