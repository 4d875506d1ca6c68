"""The plug-in, installed for one test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Follow = Callable[[type], None]


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Let LeRobot wrap what it loads; to be called with the classes it will load, which are put back afterwards."""
    from lerobot.policies import factory

    import lerobot_policy_bac as entry

    for name in ("BAC", "BAC_SCHEDULE", "BAC_EXECUTOR", "BAC_GUARD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(factory, entry._LOOKUP, getattr(factory, entry._LOOKUP))

    def plug_in(policy_class: Any) -> None:
        monkeypatch.setattr(policy_class, "from_pretrained", classmethod(policy_class.from_pretrained.__func__))
        assert entry.install()

    return plug_in
