"""The plug-in, installed for one test; small checkpoints and a data set for the `bac` command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of DP-T."""
    from policies.diffusion_transformer.processor_diffusion_transformer import (
        make_diffusion_transformer_pre_post_processors,
    )
    from tests.policies.models import small_policy

    path = tmp_path_factory.mktemp("checkpoint")
    policy = small_policy(n_layer=1)
    policy.save_pretrained(path)
    for processor in make_diffusion_transformer_pre_post_processors(policy.config, None):
        processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `multi_task_dit`."""
    from tests.lerobot import checkpoints

    return checkpoints.multi_task_dit(tmp_path_factory.mktemp("dit"))


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `multi_task_dit` with its flow-matching objective."""
    from tests.lerobot import checkpoints

    return checkpoints.multi_task_dit(
        tmp_path_factory.mktemp("flow"), objective="flow_matching", num_integration_steps=7
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name a data set of six frames."""
    from tests.lerobot.terminal import numbers

    return numbers(tmp_path_factory.mktemp("data") / "numbers", {"observation.state": 2, "action": 2})
