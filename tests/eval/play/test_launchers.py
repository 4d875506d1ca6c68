"""Whoever plays the episodes, they are the same; a worker that dies loses none that was finished."""

import builtins
import gc
import multiprocessing
import sys
import time
import warnings

import pytest

from eval.play.launchers import LAUNCHERS, LocalLauncher, RayLauncher, SerialLauncher, launcher_named
from tests.eval.players import BrokenPlayer, EndlessPlayer, Finished, Make, Some, TidyPlayer, UnluckyPlayer

PARTS = [Some("a", (5, 1, 4)), Some("b", (1, 2)), Some("a", (7,))]
EPISODES = {(part.key, seed): seed / 10 for part in PARTS for seed in part.seeds}


@pytest.fixture(scope="module")
def cluster():
    """Two workers' worth of Ray on this machine, in which launchers of this process find themselves."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, about what it will change one day
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else its workers starve beside the other tests
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield ray
        ray.shutdown()
        gc.collect()  # while the warning that its processes were not waited for is not heard


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def played(launcher, player):
    """Score by key and seed; fails if an episode comes twice."""
    pairs = list(launcher.run(Make(player), PARTS))
    table = {(key, episode.seed): episode.score for key, episode in pairs}
    assert len(table) == len(pairs)
    return table


def test_a_launcher_is_asked_for_by_name():
    assert launcher_named("serial", workers=4) == launcher_named("local", workers=1) == SerialLauncher()
    assert launcher_named("local", workers=2) == LocalLauncher(2)
    assert launcher_named("ray", workers=2, address="auto") == RayLauncher(2, "auto")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one of serial, local, ray, got 'slurm'"):
        launcher_named("slurm", workers=1)
    with pytest.raises(ValueError, match="at least one is needed, got 0"):
        launcher_named("local", workers=0)
    with pytest.raises(ValueError, match="type launcher=ray"):
        launcher_named("local", workers=2, address="auto")


def test_where_ray_is_not_installed_the_line_to_type_is_named(monkeypatch):
    real = builtins.__import__

    def without_ray(name, *args, **options):
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *args, **options)

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ModuleNotFoundError, match=r"Type: pip install '\.\[ray\]'"):
        next(RayLauncher(1).run(Make(TidyPlayer()), PARTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_command_line_names_it(name):
    pytest.importorskip("hydra")
    from eval.setup.config import settings_of
    from eval.setup.settings import Settings
    from tests.eval.setup.test_config import _compose

    settings = settings_of(_compose(f"launcher={name}"))
    assert (settings.launcher, settings.launcher_address, settings.workers) == (name, None, 2)
    assert settings_of(_compose()).launcher == Settings("a", "b", "c").launcher == "local"
    assert settings_of(_compose("launcher=ray", "launcher.address=auto")).launcher_address == "auto"


def test_serial_plays_every_part_in_order():
    episodes = SerialLauncher().run(Make(TidyPlayer()), PARTS)
    assert next(episodes) == ("a", Finished(5, 0.5))
    assert played(SerialLauncher(), TidyPlayer()) == EPISODES


@pytest.mark.slow
def test_processes_play_what_one_plays():
    assert played(LocalLauncher(2), TidyPlayer()) == EPISODES


def _play_for_ever(notes):
    list(LocalLauncher(1).run(Make(EndlessPlayer(notes)), PARTS))


def _lives(number):
    """Whether a process runs. One that has ended may stay listed until somebody asks for its exit code."""
    psutil = pytest.importorskip("psutil")
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(holds, seconds=60.0):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_no_worker_behind(notes):
    command = multiprocessing.get_context("spawn").Process(target=_play_for_ever, args=(notes,))
    command.start()
    _until(lambda: any(notes.iterdir()))
    worker = int(next(notes.iterdir()).name)
    assert _lives(worker)
    command.kill()
    command.join()
    _until(lambda: not _lives(worker))


@pytest.mark.slow
def test_ray_plays_what_one_plays(cluster):
    assert played(RayLauncher(2), TidyPlayer()) == EPISODES
    assert cluster.is_initialized()  # who connects is who disconnects


@pytest.mark.slow
def test_what_a_killed_worker_had_finished_is_kept_and_the_rest_is_played(cluster, notes):
    assert played(RayLauncher(2), UnluckyPlayer(1, notes)) == EPISODES
    assert len(list(notes.iterdir())) == 1


@pytest.mark.slow
def test_a_part_that_kills_three_workers_ends_the_command(cluster, notes):
    episodes = RayLauncher(1).run(Make(UnluckyPlayer(4, notes, most=3, after_s=2.0)), PARTS)
    assert [next(episodes), next(episodes)] == [("a", Finished(5, 0.5)), ("a", Finished(1, 0.1))]
    with pytest.raises(RuntimeError, match="3 workers died of the same part; run again to go on"):
        next(episodes)
    assert len(list(notes.iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [LocalLauncher(2), RayLauncher(1)])
def test_an_error_of_the_player_is_told(cluster, launcher):
    with pytest.raises(RuntimeError, match="(?s)a worker failed; run again to go on:.*the policy is broken"):
        played(launcher, BrokenPlayer())


@pytest.mark.slow
def test_a_comparison_by_ray_with_a_worker_killed_in_the_middle_has_the_serial_table(cluster, tmp_path):
    import bac
    from eval.play.records import EpisodeLog
    from eval.play.workers import Unit, play_units
    from eval.setup.cells import dense
    from tests.eval.toys import Toys

    nothing = bac.Denoising()
    units = [
        Unit("two", dense(2, "DDIM"), nothing, (0, 95, 40, 1)),
        Unit("three", dense(3, "DDIM"), nothing, (7, 60)),
    ]

    def lines(settings, name):
        play_units(settings, units, EpisodeLog(tmp_path / name))
        return sorted((tmp_path / name).read_text().splitlines())

    serial = lines(Toys(launcher="serial"), "serial")
    assert len(serial) == 6
    note = tmp_path / "note"
    assert lines(Toys(launcher="ray", workers=1, unlucky=0, note=note), "ray") == serial
    assert note.exists()  # seed 95 had ended beside seed 0 when the process died: it is in the log once
