"""One policy on several tasks that it tells apart by the instruction."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from eval.experiments.vla.experiment import ManyTasks
from eval.experiments.vla.report import markdown, publish
from eval.setup.settings import Settings
from policies.train import train
from tests.policies.smolvla import options_for, write_recordings

TASKS = ["reach-v3", "drawer-open-v3"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Makes the experiment on a policy that has hardly learned; each call is a new start of the command."""
    folder: Path = tmp_path_factory.mktemp("vla")
    write_recordings(folder, state=4)
    train(options_for(folder, "policy", "steps=2"))
    options = OmegaConf.create({"tasks": TASKS, "pixels": 10, "own": [2, 1], "fitted": [1], "num_fit": 5})
    settings = Settings(
        str(folder / "policy"),
        "metaworld",
        "none",
        {"max_episode_steps": 7},
        n=3,
        pool_size=2,
        outputs=folder,
        progress=False,
    )
    return lambda: ManyTasks(settings, options)


@pytest.mark.sim
@pytest.mark.slow
def test_every_way_plays_every_task_once_and_the_table_says_so(many, tmp_path):
    first = many()
    first.play()
    lines = first.log.path.read_text().splitlines()
    assert len(lines) == 3 * 2 * 3  # ways, tasks, seeds
    again = many()
    again.play()
    assert again.log.path.read_text().splitlines() == lines
    table = again.table()
    assert [(row["name"], row["steps"]) for row in table] == [("Euler-2", 2), ("Euler-1", 1), ("fitted-1", 1)]
    assert table[0]["all"]["n"] == 6
    assert [row["tasks"]["reach-v3"]["n"] for row in table] == [3, 3, 3]
    assert markdown(table)[0].endswith("| all, 2 x 3 episodes | difference to Euler-2 | reach | drawer-open |")
    publish(tmp_path, table)
    assert (tmp_path / "table.md").read_text().startswith("| way | steps |")
