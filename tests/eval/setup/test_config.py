"""Command lines: what hydra composes is what is compared."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("hydra")
from hydra import compose, initialize_config_dir

from eval.demo import demo_settings, parse
from eval.setup.cells import Cell
from eval.setup.config import CONFIGS, ROOT, cell_of, is_refusal, settings_of


def _compose(*overrides: str):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("eval", overrides=list(overrides))


@pytest.mark.parametrize(
    ("policy", "checkpoint", "env", "options"),
    [
        ("assembly", "assembly-v3", "metaworld", {"task": "assembly-v3", "max_episode_steps": 300}),
        (
            "pick_out_of_hole",
            "pick-out-of-hole-v3",
            "metaworld",
            {"task": "pick-out-of-hole-v3", "max_episode_steps": 300},
        ),
        ("pusht", "pusht", "pusht", {"max_episode_steps": 300}),
    ],
)
def test_a_policy_brings_its_world(policy, checkpoint, env, options):
    settings = settings_of(_compose(f"policy={policy}"))
    assert (settings.policy, settings.env, settings.task) == (checkpoint, env, checkpoint)
    assert dict(settings.env_options) == options
    assert settings.judged_by_score == (env == "pusht")
    assert (settings.n, settings.num_updates, settings.num_bubbled) == (200, 10, 5)


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ("adroit", {"task": "adroit-door", "max_episode_steps": 200}),
        ("so101", {"task": "so101-pick-place", "max_episode_steps": 150}),
    ],
)
def test_a_checkpoint_without_a_name_plays_in_the_world_that_is_named(env, options):
    settings = settings_of(_compose("~policy", f"env={env}", "+checkpoint=somewhere"))
    assert (settings.policy, settings.env, settings.task) == ("somewhere", env, options["task"])
    assert dict(settings.env_options) == options
    assert not settings.judged_by_score


@pytest.mark.parametrize(
    ("overrides", "cell"),
    [
        (("cache=bac", "solver=ddpm"), Cell("bac S=10 n=5 on DDPM-100", "DDPM", 100, "bac", 10, 5)),
        (("cache=acs", "solver=ddim"), Cell("acs S=10 n=0 on DDIM-100", "DDIM", 100, "acs", 10)),
        (("cache=dense", "solver=dpmpp"), Cell("DPM-Solver++-20", "DPM-Solver++", 20)),
        (
            ("cache=uniform", "cache.num_updates=7", "solver=ddim", "solver.timestep_spacing=trailing"),
            Cell("uniform S=7 n=0 on DDIM-100", "DDIM", 100, "uniform", 7, timestep_spacing="trailing"),
        ),
        (
            ("cache=unified", "cache.force_last=3"),
            Cell("unified S=15 n=0 on DDPM-100", "DDPM", 100, "unified", 15, 0, 3),
        ),
    ],
)
def test_cache_and_solver_make_the_cell(overrides, cell):
    assert cell_of(_compose(*overrides)) == cell


def test_a_policy_of_many_tasks_is_sent_to_its_command():
    config = _compose("policy=metaworld_ten")
    with pytest.raises(ValueError, match=r"which of 10 tasks.*python -m eval.experiments.vla .*policy=metaworld_ten"):
        settings_of(config)
    assert settings_of(config, of_many_tasks=True).env == "metaworld"


def test_results_over_all_tasks_do_not_lie_in_the_folder_of_one():
    many, one = _compose("policy=metaworld_ten"), _compose("policy=assembly")
    assert (many.certify.folder, many.tune.results) == (
        "results/certificates/metaworld-ten",
        "results/tune/metaworld-ten",
    )
    assert (one.certify.folder, one.tune.results) == ("results/certificates/assembly-v3", "results/tune/assembly-v3")


def test_two_policies_of_one_world_write_their_tables_into_folders_of_their_own():
    for policy, name in (
        ("so101_dit_ddpm", "so101-dit-ddpm"),
        ("so101_unet", "so101-unet"),
        ("assembly", "assembly-v3"),
    ):
        config = _compose(f"policy={policy}")
        below = [config[key].results for key in ("realtime", "joint", "reference", "tune")]
        assert config.results == f"results/{name}"
        assert {Path(folder).name for folder in below} == {name}, below


def test_the_sweep_is_asked_for_by_name():
    assert settings_of(_compose()).sweep_updates == ()
    swept = settings_of(_compose("sweep=full"))
    assert (swept.sweep_updates, swept.sweep_bubbled) == ((5, 10, 15, 20, 30), (0, 2, 5, 12, 24))


def test_the_demo_plays_forty_episodes_and_calibrates_on_sixteen_observations():
    settings = demo_settings(parse([]))
    assert (settings.n, settings.num_observations, settings.num_draws) == (40, 16, 2)
    assert settings.task == "assembly-v3"
    assert demo_settings(parse(["--quick"])).n == 2


def test_the_demo_teaches(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "in eight ways" in shown
    assert "it goes on where it stopped" in shown


@pytest.mark.parametrize(
    ("raised_by", "is_one"),
    [
        (lambda: Cell("x", "Heun"), True),  # this repository's code says what was wrong
        (lambda: float("three"), False),  # the test's own
        (lambda: torch.zeros(2).view(3), False),
        (lambda: np.zeros(2).reshape(3), False),
    ],
)
def test_a_refusal_is_what_our_own_code_says(raised_by, is_one):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        raised_by()
    assert is_refusal(caught.value) == is_one


def test_a_command_that_is_refused_says_one_line_and_no_traceback():
    command = [sys.executable, "-m", "eval.run", "policy=pusht", "checkpoint=nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("nowhere: no checkpoint here") and "Traceback" not in done.stderr
