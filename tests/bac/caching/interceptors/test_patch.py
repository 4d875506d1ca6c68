"""Interceptors stand in a stack, can be lifted and put back, and leave what was there before."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bac.caching.interceptors.patch import Interceptor, lifted, put_above, put_aside, put_on, stack_on, take_off_all


class Plus(Interceptor):
    """Adds a number to what it shadows."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.original(*inputs, **options) + self.number


class Doubling(nn.Module):
    def forward(self, number: int) -> int:
        return 2 * number

    def other(self, number: int) -> int:
        return 3 * number


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(Doubling())


def on(module: nn.Module, attribute: str, *numbers: int) -> list[Interceptor]:
    made = [Plus(number) for number in numbers]
    for interceptor in made:
        put_on(module[0], attribute, interceptor)
    return made


def traces(module: nn.Module) -> dict[str, Any]:
    return dict(vars(module[0]))


def test_put_above_stands_between_two_others_or_on_top(module):
    before = traces(module)
    low, high = on(module, "forward", 1, 10)
    between, top = Plus(100), Plus(1000)
    put_above(module[0], "forward", low, between)
    put_above(module[0], "forward", high, top)
    assert list(stack_on(module[0], "forward")) == [top, high, between, low]
    assert module(3) == 6 + 1111
    take_off_all(module)
    assert traces(module) == before


def test_lifted_interceptors_are_away_and_come_back_as_the_same_objects(module):
    on(module, "forward", 1, 10)
    on(module, "other", 5)
    before = traces(module)
    with lifted(module, but=(module[0], "other")):
        assert module(3) == 6
        assert module[0].other(3) == 9 + 5
    assert traces(module) == before and module(3) == 6 + 11


def test_lifted_interceptors_come_back_after_an_error(module):
    on(module, "forward", 1)
    before = traces(module)
    with pytest.raises(ZeroDivisionError), lifted(module, but=(module, "forward")):
        raise ZeroDivisionError
    assert traces(module) == before


def test_what_was_put_aside_is_not_called_and_comes_back(module):
    vars(module[0])["other"] = compiled = lambda number: 7 * number  # noqa: E731
    with put_aside(module[0], "other", module[0].forward):
        on(module, "other", 1)
    assert module[0].other(3) == 6 + 1
    with lifted(module, but=(module, "forward")):
        assert module[0].other is compiled
    take_off_all(module)
    assert module[0].other is compiled


def test_what_was_put_aside_for_nothing_comes_back_at_once(module):
    vars(module[0])["other"] = compiled = lambda number: 7 * number  # noqa: E731
    with put_aside(module[0], "other", module[0].forward):
        assert module[0].other(3) == 6
    assert module[0].other is compiled
