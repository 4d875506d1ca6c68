"""One policy on several tasks that it tells apart by the instruction."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

import bac
from bac.certificate import Certificate
from eval.certify import Subject, certify
from eval.experiments.vla import late_report
from eval.experiments.vla.__main__ import recorded
from eval.experiments.vla.experiment import Experiment
from eval.experiments.vla.late import Late, by_rate
from eval.experiments.vla.measures import EAGER
from eval.experiments.vla.report import markdown, publish
from eval.setup.settings import Settings
from policies.train import train
from tests.policies.smolvla import options_for, write_recordings

FITS = {"fitted_to_own": [1], "bac": [[1, 1]], "caches": [2], "files": [], "rounds": 1, "only": None}
TASKS = ["reach-v3", "drawer-open-v3"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Makes the experiment on a policy that has hardly learned; each call is a new start of the command."""
    folder: Path = tmp_path_factory.mktemp("vla")
    write_recordings(folder, state=4)
    train(options_for(folder, "policy", "steps=2"))
    options = OmegaConf.create({"tasks": TASKS, "pixels": 10, "own": [2, 1], "fitted": [1], "num_fit": 5, **FITS})
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
    return lambda: Experiment(settings, options)


@pytest.mark.sim
@pytest.mark.slow
def test_every_way_plays_every_task_once_and_the_table_says_so(many, tmp_path):
    first = many()
    first.play()
    lines = first.many.log.path.read_text().splitlines()
    assert len(lines) == 6 * 2 * 3  # ways, tasks, seeds
    again = many()
    again.play()
    assert again.many.log.path.read_text().splitlines() == lines
    table = again.table()
    names = ["Euler-2", "Euler-1", "fitted-1", "fitted-1 to own", "BAC S=1 n=1"]
    assert [row["name"] for row in table[:5]] == names
    assert table[5]["group"] == "best of all caches" and table[5]["evaluations"] <= 2
    assert table[0]["all"]["n"] == 6 and table[0]["error"][0] == 0 and table[1]["error"][0] > 0
    assert [row["tasks"]["reach-v3"]["n"] for row in table] == [3] * 6
    assert [row["evaluations"] for row in table[:4]] == [2, 1, 1, 1] and 1 <= table[4]["evaluations"] < 10
    assert all(row["jerk"]["all"] > 0 for row in table)
    assert table[0]["spread"] == 1 and table[1]["spread"] != 1
    assert markdown(table)[0].startswith("| way | NFE | success, 2 x 3 episodes | difference to Euler-2 |")
    assert "| way | reach | drawer-open |" in markdown(table)
    publish(tmp_path, table, again.latencies_ms()[EAGER])
    written = (tmp_path / "table.md").read_text()
    assert "The untouched policy, run by PyTorch, takes" in written and "over 5 rows" in written
    assert (tmp_path / "steps.png").stat().st_size > 10_000


@pytest.mark.sim
@pytest.mark.slow
def test_what_was_measured_on_other_tasks_is_measured_anew(many):
    both, one = many(), many()
    del one.many.worlds["drawer-open-v3"]
    one.cells = both.cells
    assert one.errors() != both.errors()
    assert one.errors() == one.errors()


@pytest.mark.sim
@pytest.mark.slow
def test_a_late_world_is_played_at_every_delay_and_read_at_every_rate(many, tmp_path):
    options = OmegaConf.create({"n": 2, "ways": ["Euler-2", "Euler-1"], "delays": [0, 3]})
    experiment = many()
    late = Late(experiment.many, experiment.cells, options)
    late.play()
    assert len(late.log.path.read_text().splitlines()) == 2 * 2 * 2 * 2  # ways, delays, tasks, seeds
    rows = late.table()
    assert [(row["name"], row["delay"], row["all"]["n"]) for row in rows] == [
        ("Euler-2", 0, 4), ("Euler-2", 3, 4), ("Euler-1", 0, 4), ("Euler-1", 3, 4),
    ]  # fmt: skip
    machines = by_rate(rows, [{"machine": "a robot", "way": "Euler-2", "ms": 100.0}], [5, 20, 40])
    assert [(cell["delay"], cell["read_at"]) for cell in machines[0]["rates"]] == [(1, 3), (2, 3), (4, None)]
    late_report.publish(tmp_path, rows, machines)
    assert "| a robot | Euler-2 | 100.0 |" in (tmp_path / "late.md").read_text()
    assert "never in time (4)" in (tmp_path / "late.md").read_text()


@pytest.mark.sim
@pytest.mark.slow
def test_a_certificate_plays_all_tasks_in_turn(many, tmp_path):
    experiment = many()
    cell = next(cell for cell in experiment.cells if cell.name == "fitted-1")
    options = SimpleNamespace(quantity=None, first_seed=3_000_000, max_n=5, batch=4)
    certificate = certify(
        experiment.many.settings,
        Subject(cell, cell.denoising),
        tmp_path,
        margin=0.5,
        confidence=0.95,
        options=options,
        many=experiment.many,
    )
    assert (certificate.task, certificate.n, certificate.reference) == ("metaworld, 2 tasks", 5, "FlowMatchEuler-10")
    header, *pairs = (tmp_path / "pairs.csv").read_text().splitlines()
    assert header == "task,seed,success of reference,success of method"
    worlds = [f"{task},{3_000_000 + turn}" for turn in range(3) for task in TASKS][:5]
    assert pairs == [f"{world},0,0" for world in worlds]
    assert Certificate.beside(tmp_path / "bac.json") == certificate


@pytest.mark.sim
@pytest.mark.slow
def test_what_cannot_be_played_is_said_before_anything_is(many, tmp_path):
    experiment = many()
    good = {"n": 2, "ways": ["Euler-2"], "delays": [0]}
    for wrong, sentence in (({"ways": ["Euler-7"]}, r"no such way here. Known: Euler-2, "), ({"n": 4}, "type n=4")):
        with pytest.raises(ValueError, match=sentence):
            Late(experiment.many, experiment.cells, OmegaConf.create({**good, **wrong}))
    with pytest.raises(ValueError, match=r"reach-v4: no such task here. Known: reach-v3, drawer-open-v3"):
        experiment.many.play(experiment.cells, ["reach-v4"])
    with pytest.raises(ValueError, match="there is no file .*must be a JSON list of"):
        recorded(str(tmp_path / "none.json"), ["Euler-2"])
    (tmp_path / "wrong.json").write_text('[{"way": "Euler-2"}]')
    with pytest.raises(ValueError, match="must be a JSON list of"):
        recorded(str(tmp_path / "wrong.json"), ["Euler-2"])
    (tmp_path / "other.json").write_text('[{"machine": "a robot", "way": "Euler-1", "ms": 9}]')
    with pytest.raises(ValueError, match="has Euler-1; name it in vla.late.ways, too"):
        recorded(str(tmp_path / "other.json"), ["Euler-2"])
    assert recorded(None, []) == []


@pytest.mark.sim
@pytest.mark.slow
def test_a_file_is_a_way_that_follows_what_the_file_holds_now(many, tmp_path):
    experiment = many()
    fitted = next(cell.denoising for cell in experiment.cells if cell.name == "fitted-1")
    chosen = {**experiment.options, "fitted": [], "fitted_to_own": [], "bac": [], "caches": []}
    for denoising in (fitted, bac.Denoising(num_steps=2)):
        denoising.save(tmp_path / "bac.json")
        experiment.options = OmegaConf.create({**chosen, "files": [str(tmp_path / "bac.json")]})
        del experiment.cells
        *first, last = experiment.cells
        assert [cell.name for cell in first] == ["Euler-2", "Euler-1"]
        assert last.name == f"tuned: {denoising.name}" and last.denoising.num_steps == denoising.num_steps


@pytest.mark.sim
@pytest.mark.slow
def test_two_ways_of_one_name_and_too_few_sweeps_are_refused(many, tmp_path):
    experiment = many()
    chosen = {**experiment.options, "fitted": [], "fitted_to_own": [], "bac": []}
    for wrong, sentence in (
        ({"own": [2, 2]}, "two ways are called 'Euler-2'; leave one of them out"),
        ({"caches": [0.5]}, "no schedule makes 0.5 sweeps or fewer; ask for 1 or more"),
    ):
        experiment.options = OmegaConf.create({**chosen, **wrong})
        with pytest.raises(ValueError, match=sentence):
            _ = experiment.cells


def test_a_machine_of_any_way_is_drawn_and_what_was_not_played_is_left_out(tmp_path):
    late = [{"name": f"Euler-{k}", "delay": 0, "all": {"n": 4, "success": [0.5, 0.2, 0.8]}} for k in range(1, 7)]
    machines = by_rate(late, [{"machine": "a robot", "way": "Euler-6", "ms": 50.0}], [10, 80])
    assert [cell["success"] for cell in machines[0]["rates"]] == [None, None]
    late_report.draw(tmp_path / "late.png", late, machines)
    assert (tmp_path / "late.png").stat().st_size > 10_000
