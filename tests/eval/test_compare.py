"""Which command makes the table of a policy."""

import sys

import pytest
from hydra import compose, initialize_config_dir

from eval import compare
from eval.setup.config import CONFIGS

MAKERS = {
    "pusht": None,
    "adroit_door": None,
    "so101_unet": None,
    "pusht_flow": "eval.experiments.flow",
    "so101_pixels": "eval.experiments.vla",
    "so101_dit": "eval.experiments.vla",
    "metaworld_ten": "eval.experiments.vla",
}


def configuration(*overrides: str):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("eval", list(overrides))


@pytest.mark.parametrize("policy", MAKERS)
def test_a_flow_policy_has_a_table_of_its_own(policy):
    assert compare.maker_of_flow(configuration(f"policy={policy}")) == MAKERS[policy]


def test_what_the_other_command_cannot_do_is_refused():
    with pytest.raises(SystemExit, match="phase=report: this policy's table is made by python -m eval.experiments"):
        compare.maker_of_flow(configuration("policy=pusht_flow"), ["policy=pusht_flow", "phase=report"])
    with pytest.raises(SystemExit, match="nowhere: no checkpoint here"):
        compare.maker_of_flow(configuration("policy=so101_pixels", "checkpoint=nowhere"))


def test_the_command_becomes_the_one_that_makes_the_table(monkeypatch):
    became = []
    monkeypatch.setattr(sys, "argv", ["eval/compare.py", "policy=so101_dit", "n=3"])
    monkeypatch.setattr(compare.os, "execv", lambda program, words: became.append(words) or sys.exit(0))
    with pytest.raises(SystemExit):
        compare.main()
    assert became == [[sys.executable, "-m", "eval.experiments.vla", "policy=so101_dit", "n=3"]]
