"""Every name of LeRobot that `bac` relies on is there in the installed one, and in one file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

import bac
from bac.adapters.lerobot import names
from bac.cli import lerobot
from bac.errors import BacError

NAMED = (names.LOOKUP, names.RTC_CLOCK, names.RTC_WEIGHTS, names.GROOT_SAMPLER, *names.COMMANDS.values())
CLASSES = (*names.POLICIES.values(), *names.NOT_DENOISING.values())


def test_the_installed_lerobot_is_one_that_bac_was_tested_with():
    assert importlib.metadata.version("lerobot") in names.VERSIONS


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_the_name_is_there(name):
    if name == names.COMMANDS["serve"]:  # importing it makes a folder for logs
        server = importlib.util.find_spec(name.rpartition(".")[0])
        assert "\ndef serve(" in Path(server.origin).read_text(encoding="utf-8")
        return
    assert names.look_up(name) is not None


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_is_there(name):
    """Read, not imported: some need packages that are not installed."""
    module, _, cls = name.rpartition(".")
    root = Path(importlib.util.find_spec("lerobot").submodule_search_locations[0])
    source = root.joinpath(*module.split(".")[1:]).with_suffix(".py")
    assert f"\nclass {cls}(" in source.read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_real_time_chunking_gives_a_policy_is_called_as_bac_calls_it():
    import inspect

    from lerobot.rollout.inference import rtc

    assert all(f"{option}=" in inspect.getsource(rtc) for option in names.RTC_OPTIONS)


@pytest.mark.slow
def test_what_groots_sampler_takes_and_calls_is_called_as_bac_calls_it():
    import inspect

    from lerobot.policies.groot.configuration_groot import GrootConfig

    source = inspect.getsource(names.look_up(names.GROOT_SAMPLER))
    quoted = [f'options["{number}"]' for number in names.GROOT_NUMBERS]
    assert all(name in source for name in (*quoted, *names.GROOT_OPTIONS, f"self.{names.GROOT_ENCODER}("))
    assert names.GROOT_UNGUIDED in vars(GrootConfig)["__dataclass_fields__"]


def test_no_other_file_of_bac_names_a_module_of_lerobot():
    quoted = re.compile(r'"lerobot\.[a-z_.]+')
    root = Path(bac.__file__).parent
    files = [*root.rglob("*.py"), root.parent / "lerobot_policy_bac.py"]
    found = {path.name for path in files if quoted.search(path.read_text(encoding="utf-8"))}
    assert found == {"names.py"}


def test_a_name_that_is_gone_is_one_line_that_says_which_lerobot_has_it(monkeypatch):
    monkeypatch.setitem(names.COMMANDS, "rollout", "lerobot.rollout_that_moved")
    monkeypatch.setattr(lerobot, "COMMANDS", names.COMMANDS)
    with pytest.raises(BacError, match=r"there is no lerobot\.rollout_that_moved in this LeRobot.*lerobot==0\.6\.1"):
        lerobot.named("rollout")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(names.COMMANDS, "rollout", "a_package_that_is_missing.inner.rollout")
    with pytest.raises(BacError, match="a_package_that_is_missing: not installed"):
        lerobot.named("rollout")
