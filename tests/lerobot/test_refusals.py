"""LeRobot's policies that make no use of caching are refused by name, with what can be taken instead."""

from __future__ import annotations

import pytest
from torch import nn

from bac.adapters import find_host, lerobot
from bac.errors import UnsupportedPolicyError


def stand_in(dotted: str) -> nn.Module:
    """An object of a class with that dotted name."""
    module, _, name = dotted.rpartition(".")
    return type(name, (nn.Module,), {"__module__": module})()


@pytest.mark.parametrize("dotted", lerobot.REFUSED)
def test_the_message_names_the_policy_the_reason_and_the_alternatives(dotted):
    with pytest.raises(UnsupportedPolicyError) as caught:
        find_host(stand_in(dotted))
    message = str(caught.value)
    assert message.startswith(f"{dotted.rpartition('.')[2]}: found no ")
    assert lerobot.REFUSED[dotted] in message
    assert "multi_task_dit" in message and "smolvla" in message


def test_every_row_names_a_class_of_lerobot():
    policies = pytest.importorskip("lerobot.policies")
    from pathlib import Path

    root = Path(policies.__path__[0])
    for dotted in (*lerobot.ADAPTERS, *lerobot.REFUSED):
        *_, folder, module, name = dotted.split(".")
        assert f"class {name}(" in (root / folder / f"{module}.py").read_text(encoding="utf-8")
