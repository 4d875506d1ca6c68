"""Success against rate and latency, on a tiny random policy in Push-T."""

import json
from types import SimpleNamespace

import pytest

import bac

pytestmark = [pytest.mark.slow, pytest.mark.sim]

NAMES = ["DDPM-100", "DDIM-2", "BAC S=10 n=2", "BAC S=10 n=2, last 3 forced", "DPM-Solver++-3"]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Latencies of another machine; at Push-T's 10 Hz DDPM takes 2 or 3 control steps, the others one."""
    path = tmp_path_factory.mktemp("recorded") / "latencies.json"
    path.write_text(json.dumps({"DDPM-100": [150.0, 210.0]} | dict.fromkeys(NAMES[1:], [40.0])))
    chosen = path.with_name("chosen.json")
    bac.Denoising("DPM-Solver++", (90, 40, 3)).save(chosen)
    methods = {"ddim_steps": [2], "force_last": [0, 3], "files": [str(chosen)]}
    return SimpleNamespace(rate_factors=[1, 2], delays=[0, 1], modes=["act"], recorded=str(path), **methods)


@pytest.fixture(scope="module")
def curves(pusht_settings, options):
    from eval.compared.comparison import Comparison
    from eval.experiments.realtime import Curves
    from eval.setup.cells import dense
    from eval.setup.files import write_json

    settings = pusht_settings(
        max_episode_steps=5, n=2, num_bubbled=2, num_observations=2, num_draws=1, num_observation_episodes=1
    )
    write_json(settings.folder / "realtime_rivals.json", [dense(2, "DDIM").to_document()])
    made = Curves(Comparison(settings), options)
    made.play()
    return made


def test_rates_and_latencies_become_control_steps(curves):
    assert [cell.name for cell in curves.cells] == NAMES
    dense = [point for point in curves.points if point.cell.name == "DDPM-100"]
    assert [(point.curve, point.control_hz, point.latency_ms, point.pace.delays) for point in dense] == [
        ("control_hz", 10.0, 210.0, (2, 3)),
        ("control_hz", 20.0, 210.0, (3, 5)),
        ("latency", 10.0, 0.0, (0,)),
        ("latency", 10.0, 100.0, (1,)),
    ]


def test_points_that_take_as_many_control_steps_are_played_once(curves):
    # Dense: (2, 3), (3, 5), 0 and 1; the others: 0 and 1, which is what their latency is at both rates.
    lines = curves.log.path.read_text().splitlines()
    assert len(lines) == 2 * (4 + (len(NAMES) - 1) * 2)
    curves.play()
    assert curves.log.path.read_text().splitlines() == lines


def test_publishing_writes_the_table_and_the_picture(curves, tmp_path):
    from eval.experiments.realtime import publish

    rows = publish(curves, tmp_path)
    assert json.loads((tmp_path / "table.json").read_text()) == rows
    assert len(rows) == len(NAMES) * (2 + 2)
    assert {row["n"] for row in rows} == {2}
    still = next(row for row in rows if row["name"] == "DDPM-100" and row["delay_steps"] == [0, 0])
    assert (still["paired_difference"], still["curve"]) == (0.0, "latency")
    assert {path.name for path in tmp_path.iterdir()} == {"table.json", "curves.png", "provenance.json"}


def test_a_method_without_recorded_latencies_is_refused(curves, options, tmp_path):
    from eval.experiments.realtime import Curves

    path = tmp_path / "latencies.json"
    path.write_text('{"DDPM-100": [150.0]}')
    with pytest.raises(ValueError, match=r"has no latencies of DDIM-2, BAC S=10 n=2"):
        Curves(curves.comparison, SimpleNamespace(**{**vars(options), "recorded": str(path)}))


def test_all_methods_are_filmed_side_by_side(curves, tmp_path):
    from eval.experiments.realtime import film_all

    video, still = film_all(curves, tmp_path, control_hz=20.0)
    assert video.stat().st_size > 5_000 and still.stat().st_size > 5_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["realtime.mp4", "realtime.png"]
