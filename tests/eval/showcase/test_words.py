"""The demo's policy that is told its task in words, on a policy that has hardly learned."""

from __future__ import annotations

import pytest

import bac
from eval.compared.many_tasks import ManyTasks
from eval.setup.settings import Settings
from eval.showcase.words import EAGER, FITTED, REPLAYED, Told, tasks_and_pixels
from policies.train import train
from tests.policies.smolvla import options_for, write_recordings

pytestmark = [pytest.mark.slow, pytest.mark.sim]
TASKS = ["reach-v3", "drawer-open-v3"]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    write_recordings(folder, state=4)
    train(options_for(folder, "policy", "steps=2"))
    bac.Denoising("Euler", timesteps=(1.0, 0.5)).save(folder / "policy" / FITTED)
    settings = Settings(
        str(folder / "policy"), "metaworld", "none", {"max_episode_steps": 7},
        n=2, pool_size=2, outputs=folder, progress=False,
    )  # fmt: skip
    made = Told(ManyTasks(settings, TASKS, 10))
    made.play()
    return made


def test_four_ways_are_told_and_the_policy_as_it_is_comes_first(told):
    header, *rows = told.rows()
    assert header[1:] == ("success", "a chunk", "chunks/s", "faster")
    rival = "rival: 2 of its own steps, replayed"
    assert [row[0] for row in rows] == [EAGER, REPLAYED, "2 fitted steps, replayed", rival]
    assert rows[0][-1] == "1.0x" and rows[0][1] == rows[1][1]
    assert (
        "2 fitted steps replayed" in told.recommendation() and "4 paired episodes of 2 tasks" in told.recommendation()
    )


def test_the_film_shows_the_sentence_and_the_same_episode(told, tmp_path):
    clip = told._clip("reach-v3")
    assert clip.title and clip.duration_s == pytest.approx(7 / 80)
    assert clip.frames[0].shape == (240, 240, 3)
    files = told.film(tmp_path, TASKS)
    assert [path.name for path in files] == ["words.mp4", "words.gif", "words.png"]


def test_its_tasks_are_those_of_the_comparison():
    tasks, pixels = tasks_and_pixels()
    assert len(tasks) == 10 and pixels == 96
