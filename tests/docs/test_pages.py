"""The first pages, gone through as a newcomer does: every block of code runs, in order, in a fresh folder."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import CODE, PAGES, ROOT, Block, blocks
from tests.lerobot import commands
from tests.lerobot.terminal import numbers, run

ALL = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
EVALUATE, ONCE = "lerobot-eval", "docs/lerobot.md"

# What a test cannot wait for, and what it lacks: a data set, and a policy of more than five steps.
IN_PYTHON = {
    'batches_of("you/your-dataset")': 'batches_of("here/numbers", count=4, size=2, root="numbers")',
    "target_hz=25)": "target_hz=0.5, evaluations=0, rounds=2, progress=False)",
    "num_updates=20, num_bubbled=5": "num_updates=2, num_bubbled=1",
    "bac.calibrate(policy, batches)": "bac.calibrate(policy, batches, progress=False)",
}
IN_A_TERMINAL = {
    "bac tune": "--runs 4 --batch-size 2 --evaluations 0 --env-option episode_length=17 --target-hz 0.5",
    "bac calibrate": "--runs 4 --batch-size 2 --env-option episode_length=17 --num-updates 2 --num-bubbled 1",
    "bac guard": "--runs 2 --batch-size 2 --env-option episode_length=17 --every 1",
    "bac bench": "--rounds 2 --executor interpret",
    "bac compare": "--episodes 2 --batch-size 2 --rounds 2 --steps 2 --env-option episode_length=9",
    EVALUATE: "--policy.device=cpu --env.episode_length=9 --eval.n_episodes=2 --output_dir=eval_{number}",
}


def test_every_page_is_in_the_navigation():
    configured = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in ALL if page != "README.md" and f": {Path(page).name}\n" not in configured] == []


def test_readme_and_contributing_stay_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 120


@pytest.mark.parametrize("page", [*ALL, "CONTRIBUTING.md", "results/README.md"])
def test_every_link_leads_to_a_file(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    missing = [link for link in links if ":" not in link and not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    assert [block.text for block in blocks(page) if block.language not in (*CODE, "text", "bibtex")] == []


@pytest.mark.parametrize("page", ALL)
def test_every_block_of_python_can_be_read(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page, "exec")


@pytest.mark.parametrize("page", ["docs/wrap.md", "docs/control.md"])
def test_blocks_that_need_nothing_run(page):
    names: dict[str, Any] = {}
    ours = [block for block in blocks(page) if block.language == "python" and "policy.head" not in block.text]
    for block in ours:
        exec(compile(block.text, page, "exec"), names)
    assert ours


def quicker(block: Block) -> str:
    text = block.text
    for wanted, instead in IN_PYTHON.items():
        text = text.replace(wanted, instead)
    return text


def type_in(line: str, number: int, folder: Path) -> None:
    """Run one line of a terminal in `folder`, quicker."""
    words = shlex.split(line)
    given = dict(word.split("=", 1) for word in words if re.fullmatch(r"[A-Z_]+=\S*", word))
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    more = IN_A_TERMINAL.get(words[0]) or IN_A_TERMINAL.get(" ".join(words[:2]), "")
    words += shlex.split(more.format(number=number))
    if words[0] == EVALUATE:
        site = commands.install(folder / f"site_{number}", "lerobot_policy_bac")
        plugin = ROOT / "policies/plugin/lerobot_policy_diffusion_transformer.py"
        paths = [commands.install(site, "lerobot_policy_diffusion_transformer", plugin), ROOT]
        log = f"log_{number}"
        command = commands.start(
            "lerobot.scripts.lerobot_eval", *words[1:], folder=folder, log=log, paths=paths, **given
        )
        assert "follows" in command.finish()
    else:
        assert words[0] == "bac"
        result = run(*words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the shipped checkpoint, at five steps of DDIM, and a data set."""
    shutil.copytree(ROOT / "policies/checkpoints/pusht", tmp_path / "CKPT")
    path = tmp_path / "CKPT" / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "noise_scheduler_type": "DDIM", "num_inference_steps": 5})
    )
    numbers(
        tmp_path / "numbers",
        {"observation.state": 2, "observation.environment_state": 16, "action": 2},
        unit=80.0,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAC", "off")  # of this process; LeRobot's commands have their own
    monkeypatch.syspath_prepend(str(ROOT / "policies/plugin"))
    importlib.import_module("lerobot_policy_diffusion_transformer")
    return tmp_path


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of pygame, where it is imported
@pytest.mark.parametrize("page", PAGES)
def test_a_newcomer_can_type_the_page(page, fresh):
    names: dict[str, Any] = {}
    once = {line for block in blocks(ONCE) for line in block.commands}
    for number, block in enumerate(blocks(page)):
        if block.why_not is not None or block.language not in CODE:
            continue
        if block.language == "python":
            if page == "README.md" and "calibrate" in block.text:
                exec(batches_of_first_speedup(), names)
            exec(compile(quicker(block), f"{page}, block {number}", "exec"), names)
        else:
            for place, line in enumerate(block.commands):
                if page == ONCE or line not in once:  # the very line is run on the other page, and takes its time
                    type_in(line, 100 * number + place, fresh)
    assert os.getcwd() == str(fresh)


def batches_of_first_speedup() -> str:
    """README's `batches` are those of docs/first-speedup.md."""
    _, load, data, *_ = [block for block in blocks("docs/first-speedup.md") if block.language in CODE]
    head = "\n".join(line for line in load.text.splitlines() if "bac" not in line)
    return f"{head}\n{quicker(data).partition('for _ in range')[0]}"
