"""The joint experiment, whole, on a tiny random policy in Push-T: searched, resumed, played, published."""

import json
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.sim]

TUNED, OTHER, EVEN = "DPM-Solver++ tuned, 3 sweeps", "DPM-Solver++ 1 tuned, 3 sweeps", "DPM-Solver++-3"


def options(**others):
    few = {"budgets": [3], "num_fit": 2, "num_held_out": 2, "evaluations": 2, "rounds": 2}
    return SimpleNamespace(**few, play=[TUNED, OTHER], pairs=[[TUNED, OTHER]], **others)


@pytest.fixture(scope="module")
def comparison(pusht_settings):
    from eval.compared.comparison import Comparison

    return Comparison(
        pusht_settings(
            max_episode_steps=5, n=2, num_observations=2, num_draws=1, num_observation_episodes=1, executor="interpret"
        )
    )


@pytest.fixture(scope="module")
def joint(comparison):
    from eval.experiments.methods.joint import Joint

    return Joint(comparison, options())


@pytest.fixture(scope="module")
def found(joint):
    return joint.found()


@pytest.fixture(scope="module")
def rows(joint, found):
    return joint.played(found)


def test_every_family_stands_beside_even_steps_and_caches_at_its_budget(found):
    from eval.experiments.methods.joint import FAMILIES

    names = [row.cell.name for row in found]
    assert [f"{name}, 3 sweeps" for name in FAMILIES.values()] == [name for name in names if "tuned" in name]
    assert any(name.startswith("DDIM-3") for name in names) and any(name.startswith(EVEN) for name in names)
    assert names[-2:] == ["BAC S=10 n=5", "BAC S=10 n=5 on DDIM-100"]
    assert {row.sweeps for row in found if "tuned" in row.cell.name} == {3.0}
    assert all(row.error > 0 and row.typical > 0 for row in found)


def test_tuned_steps_are_no_worse_than_even_ones_where_they_were_chosen(found):
    by_name = {row.cell.name: row for row in found}
    even = next(row for row in found if row.cell.name.startswith(EVEN))
    assert by_name[TUNED].fit_error <= even.fit_error


def test_what_was_found_is_not_looked_for_again(comparison, found, monkeypatch):
    from eval.experiments.methods.joint import Joint

    def fail(*args, **options):
        raise AssertionError("the policy was run")

    again = Joint(comparison, options())
    monkeypatch.setattr(again.policy, "predict_action_chunk", fail)
    monkeypatch.setattr(again.policy.diffusion, "conditional_sample", fail)
    assert again.found() == found


def test_playing_writes_a_row_for_each_method_and_plays_no_episode_twice(joint, found, comparison, rows):
    assert sorted(row["name"] for row in rows) == ["DDIM-100", "DDPM-100", OTHER, TUNED]
    assert {row["n"] for row in rows} == {2}
    assert (rows[0]["name"], rows[0]["difference"][0]) == ("DDPM-100", 0.0)
    lines = comparison.log.path.read_text().splitlines()
    assert len(lines) == 2 * 4
    assert joint.played(found) == rows
    assert comparison.log.path.read_text().splitlines() == lines


def test_the_phase_play_goes_no_further_than_playing(comparison, rows, tmp_path, monkeypatch):
    from eval.experiments.methods import joint

    monkeypatch.setattr(joint, "settings_of", lambda config: comparison.settings)
    monkeypatch.setattr(joint, "log_to_terminal", lambda: None)
    monkeypatch.setattr(joint.Joint, "latencies_ms", None)
    joint.main.__wrapped__(SimpleNamespace(joint=options(phase="play", results=str(tmp_path / "results"))))
    assert len(comparison.log.path.read_text().splitlines()) == 2 * 4
    assert not (tmp_path / "results").exists()


def test_publishing_writes_every_method_with_its_latency(joint, found, rows, tmp_path):
    from eval.experiments.methods.joint_report import EAGER, publish
    from eval.setup.files import write_json

    write_json(joint.folder / "latency.json", {row.cell.name: 5.0 for row in found} | {EAGER: 50.0})
    paired = joint.paired(found)
    publish(tmp_path, joint.comparison.settings.task, found, joint.latencies_ms(found), closed_loop=rows, paired=paired)
    assert (paired[0]["name"], paired[0]["minus"], paired[0]["n"]) == (TUNED, OTHER, 2)
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["name"] for row in table["fidelity"]] == [row.cell.name for row in found]
    assert {row["latency_ms"] for row in table["fidelity"]} == {5.0}
    assert (table["closed_loop"], table["paired"], table["eager_ms"]) == (rows, paired, 50.0)


def test_a_pair_of_a_method_that_is_not_there_is_refused(joint, found, monkeypatch):
    monkeypatch.setattr(joint.options, "pairs", [(TUNED, "magic")])
    with pytest.raises(ValueError, match="joint.pairs: 'magic' is no method here"):
        joint.paired(found)
