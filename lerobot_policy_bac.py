"""LeRobot's entry to `bac`: a policy that LeRobot loads is replayed, and follows the ``bac.json`` beside its weights.

LeRobot imports each installed distribution whose name begins with ``lerobot_policy_`` as a module of that name, this
one, at the start of its commands. From then on `from_pretrained` wraps what it has loaded:

- Without a ``bac.json`` the policy is replayed as it is: same actions, faster. It is prepared in the call for its first
  chunk, before the robot moves (`bac.lerobot`). A policy that cannot be replayed runs as it is; one line says why.
- A ``bac.json`` in the checkpoint's folder (a PEFT adapter's folder first), or the file in ``BAC_SCHEDULE``, holds one
  way to denoise: solver, timesteps and schedule (`bac tune`), or a schedule alone (`bac calibrate`). One that does not
  fit is an error.
- ``BAC_PRESET=flow-3`` takes a few-step solver of `bac.presets` instead, for policies that flow matching trained.
- The verdict of ``certificate.json`` in the same folder (`eval.certify` writes it) is logged.
- ``BAC_GUARD=log``, ``denser`` or ``dense`` puts ``guard.json`` (`bac guard` writes it) on duty with that response to
  an alarm; ``on`` takes the response it was saved with. Its report is logged at exit.
- ``BAC=intercept`` replays nothing and prepares nothing: without a ``bac.json`` it does nothing.
- ``BAC=off`` switches all of this off. In training, policies are loaded as they are.

The policy keeps its class, configuration, processors and files.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bac
from bac import presets
from bac.adapters import find_host
from bac.adapters.lerobot.names import LOOKUP
from bac.certificate import Certificate
from bac.guarding import files
from bac.guarding.duty import watched_schedule
from bac.guarding.interceptor import monitor_of
from bac.guarding.monitor import Monitor
from bac.lerobot import prepare_at_first_chunk, uncompiled, why_not_replayed

logger = logging.getLogger(__name__)

SCHEDULE_NAME = "bac.json"
_MARK = "_follows_bac"
_PLACE, _, _LOOKUP = LOOKUP.rpartition(".")
_OFF = ("off", "0", "false", "no")
_BY_HAND = "policies are loaded as they are; wrap yours in your own script: bac.wrap(policy, schedule)"


def install() -> bool:
    """Make LeRobot's loaders wrap the policies they load. Calling it again changes nothing.

    Returns:
        Whether it succeeded; if not, a warning gives the reason.
    """
    try:
        factory: Any = importlib.import_module(_PLACE)
    except ImportError as error:
        logger.warning("bac: LeRobot cannot be imported (%s); %s", error, _BY_HAND)
        return False
    lookup = getattr(factory, _LOOKUP, None)
    if lookup is None:
        logger.warning("bac: this LeRobot has no %s; %s", LOOKUP, _BY_HAND)
        return False
    if not hasattr(lookup, _MARK):
        _say_errors_in_one_line()

        @functools.wraps(lookup)
        def look_up(name: str) -> Any:
            return _wrapping(lookup(name=name))

        setattr(look_up, _MARK, True)
        setattr(factory, _LOOKUP, look_up)
    return True


def _say_errors_in_one_line() -> None:
    """Let a command of LeRobot that an error of `bac` ends say that error alone. Other programs keep tracebacks."""
    if not Path((sys.argv or [""])[0]).name.startswith("lerobot"):
        return
    show = sys.excepthook

    def say(kind: type[BaseException], error: BaseException, where: Any) -> None:
        if isinstance(error, bac.BacError):
            sys.stderr.write(f"{kind.__name__}: {error}\n")
        else:
            show(kind, error, where)

    sys.excepthook = say


def _wrapping(policy_class: Any) -> Any:
    """The same class, with a `from_pretrained` that wraps the policy it loads."""
    load = policy_class.from_pretrained.__func__  # behind the classmethod, so that a sub-class passes itself as `cls`
    if hasattr(load, _MARK):
        return policy_class

    @functools.wraps(load)
    def from_pretrained(cls: Any, *args: Any, **options: Any) -> Any:
        policy = load(cls, *args, **options)
        if _is_training(options) or (mode := find_mode()) == "off":
            return policy
        folder = args[0] if args else options.get("pretrained_name_or_path")
        path = find_schedule(folder, options.get("config"))
        if path is None:
            _say_that_nothing_is_guarded()
            return _replay_as_it_is(policy) if mode == "replay" else policy
        return _wrap(policy, path, replay=mode == "replay")

    setattr(from_pretrained, _MARK, True)  # LeRobot looks a class up more than once
    policy_class.from_pretrained = classmethod(from_pretrained)
    return policy_class


def find_mode() -> str:
    """What the environment asks for: "replay" if nothing else, "intercept" or "off".

    Raises:
        ScheduleError: ``BAC`` is something else.
    """
    if os.environ.get("BAC_EXECUTOR"):
        logger.warning("bac: BAC_EXECUTOR is no longer read: policies are replayed; BAC=intercept replays nothing")
    asked = os.environ.get("BAC", "").lower()
    if asked in _OFF:
        return "off"
    if asked not in ("", "replay", "intercept"):
        rule = "must be off, intercept or replay, which it is if unset"
        raise bac.errors.ScheduleError(f"BAC: {rule}, got {asked!r:.40}; type BAC=replay")
    return asked or "replay"


def find_schedule(folder: Any, config: Any = None) -> Path | None:
    """The schedule file of the checkpoint in `folder`, if there is one and `bac` is not switched off.

    Args:
        folder: A folder, or a name on the Hub; a name has no schedule.
        config: LeRobot's policy configuration; its `pretrained_path` is the folder of a PEFT adapter.

    Raises:
        ScheduleError: ``BAC_SCHEDULE`` names a file that does not exist, ``BAC_PRESET`` no preset, or both are set.
    """
    if _is_off("BAC"):
        return None
    if preset := os.environ.get("BAC_PRESET"):
        if os.environ.get("BAC_SCHEDULE"):
            raise bac.errors.ScheduleError("BAC_PRESET: BAC_SCHEDULE names a file already; unset one of them")
        return presets.path_of(preset)
    if named := os.environ.get("BAC_SCHEDULE"):
        if not Path(named).is_file():
            raise bac.errors.ScheduleError(f"BAC_SCHEDULE: there is no file {named}; correct it, or set BAC=off")
        return Path(named)
    folders = [getattr(config, "pretrained_path", None), folder]
    beside = (Path(place) / SCHEDULE_NAME for place in folders if place)
    return next((path for path in beside if path.is_file()), None)


def _is_training(options: Mapping[str, Any]) -> bool:
    """LeRobot passes `dataset_meta` only if it loads a policy for training."""
    return options.get("dataset_meta") is not None


def find_guard(path: Path, denoising: bac.Denoising, policy: Any) -> bac.Guard | None:
    """The guard beside the file at `path`, if ``BAC_GUARD`` asks for it.

    Raises:
        ScheduleError: ``BAC_GUARD`` asks for a missing guard or an unknown response, or the file reuses nothing.
    """
    asked = os.environ.get("BAC_GUARD", "").lower()
    if not asked or _is_off("BAC_GUARD"):
        return None
    if asked not in ("on", *files.RESPONSES):
        raise bac.errors.ScheduleError(f"BAC_GUARD: must be on, {', '.join(files.RESPONSES)} or off, got {asked}")
    schedule = watched_schedule(denoising, find_host(policy))
    return files.beside(path, schedule, None if asked == "on" else asked)


def _is_off(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in _OFF


def _say_that_nothing_is_guarded() -> None:
    if os.environ.get("BAC_GUARD") and not _is_off("BAC_GUARD") and not _is_off("BAC"):
        logger.warning("bac: BAC_GUARD is set, but there is no schedule beside this policy, so nothing is guarded")


def _replay_as_it_is(policy: Any) -> Any:
    """Let a policy that no file speaks of be replayed, if `bac` knows it."""
    name, reason = type(policy).__name__, why_not_replayed(policy)
    if reason is None:
        try:
            with uncompiled(policy):
                bac.wrap(policy, strict=False)  # nothing to compare, and a hash of all weights takes its time
            if prepare_at_first_chunk(policy):
                return policy
        except bac.BacError as error:
            reason = str(error).removeprefix(f"{name}: ")
        except Exception as error:  # an adapter reads what this LeRobot does not have
            reason = f"bac cannot take it apart ({type(error).__name__}: {error})."
    bac.unwrap(policy)
    logger.info("bac: %s runs as it is: %s", name, " ".join((reason or "it cannot be replayed.").split()))
    return policy


def _wrap(policy: Any, path: Path, *, replay: bool) -> Any:
    """Wrap a policy with the way to denoise in a file and, if ``BAC_GUARD`` asks for it, a guard."""
    try:
        certificate = Certificate.beside(path)
        if certificate is not None:
            logger.log(logging.INFO if certificate.verdict == "shown" else logging.WARNING, "bac: %s", certificate)
        denoising = bac.load(path)
        guard = find_guard(path, denoising, policy)
        replay = replay and why_not_replayed(policy) is None
        with uncompiled(policy):
            bac.wrap(policy, denoising, replay=replay, guard=guard)
    except bac.BacError as error:
        error.args = (f"{error}\nIt follows {_words(path, str(path))}. To run the policy without it: BAC=off",)
        raise
    what = _words(path, str(path)), _work(denoising)
    logger.info("bac: %s follows %s: %s (BAC=off to leave it alone)", type(policy).__name__, *what)
    if replay:
        prepare_at_first_chunk(policy, follows=_words(path))
    if guard is not None:
        logger.info("bac: %s", "\n".join(str(guard).splitlines()[:2]))
        atexit.register(_report, type(policy).__name__, monitor_of(policy))
    return policy


def _words(path: Path, otherwise: str = "its file") -> str:
    """What a policy follows: a preset by its name, a file as it is called otherwise."""
    return f"the preset {path.stem}" if path in map(presets.path_of, presets.names()) else otherwise


def _work(denoising: bac.Denoising) -> str:
    """The work of one chunk, in one line."""
    schedule = denoising.schedule
    if not isinstance(schedule, bac.Schedule):
        return denoising.name
    updates = f"{schedule.num_updates_total} of {schedule.num_steps * len(schedule.block_names)} updates"
    return f"{denoising.name}; {updates} in {len(schedule.block_names)} blocks and {schedule.num_steps} denoising steps"


def _report(policy: str, monitor: Monitor) -> None:
    report = monitor.report()
    if report.num_chunks:
        logger.log(logging.WARNING if report.num_alarms else logging.INFO, "bac: %s: %s", policy, report)


install()  # LeRobot only imports this module
