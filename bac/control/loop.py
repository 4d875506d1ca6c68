"""The control loop: it acts on the current chunk, computes the next one, and stops the robot when that fails."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, Literal, Protocol

from bac.control.checks import Range, as_action, as_chunk, as_count, as_positive, as_range, check_range
from bac.control.clock import Clock, Outcome, WallClock, Worker, prompt_threads
from bac.control.deadline import Deadline
from bac.control.snapshot import snapshot
from bac.control.statistics import LoopRecorder, Statistics
from bac.control.ticker import Ticker
from bac.control.timeline import Actions, Timeline
from bac.errors import ControlError

logger = logging.getLogger(__name__)

_RECENT = 32  # chunks; the slowest of them sets how early the next one begins
_WARMUP_TIMEOUT_S = 300.0  # long, because recording or compiling a plan takes time


class Policy(Protocol):
    """A chunked policy with its processors: it maps a robot's observation to actions that the robot can execute."""

    def reset(self) -> None:
        """Forget the last episode."""

    def predict_action_chunk(self, batch: Any, /) -> Any:
        """The actions from the observed control step on, `[1, T, Da]` or `[T, Da]`. Called in the worker's thread."""


class Robot(Protocol):
    """A robot. Both methods are called once in each control step, in one thread (see `ControlLoop.robot_timeout_s`)."""

    def observe(self) -> Any:
        """The policy's batch. For a policy with several observation steps, it includes the history."""

    def act(self, action: Actions, /) -> None:
        """Begin an action, `[Da]` float32, and return."""


@dataclass(frozen=True)
class ControlLoop:
    """Drives a robot at a fixed rate with a chunked policy, which thinks while the robot acts (see `bac.control`)::

        stand_still = lambda last, observation: observation["joints"]
        loop = bac.ControlLoop(policy, robot, control_hz=50, safe_action=stand_still)
        print(loop.run(num_steps=3000))

    - Step k begins at start + k / `control_hz`; earlier delays do not shift it. Steps that are over are skipped.
    - The robot acts on the newest chunk, from the row that belongs to the current step.
    - The next chunk is begun early enough to arrive on time if it is as slow as the slowest of the last 32.
    - If no chunk has an action for the current step, the loop sends the action of `on_miss` and counts the step.
    - The run ends if the robot raises or takes longer than `robot_timeout_s` for a call, or if the policy raises, takes
      longer than `timeout_s`, is too late for a whole chunk twice in a row, or returns actions that are not finite,
      out of range or of another shape. Then `safe_action` is sent once, and `ControlError` is raised.
    - While a call of the robot hangs, `safe_action` is sent from another thread: a robot must stand that. Until then,
      it is on its last action. If the safe action hangs too, the error's `safe_action_sent` is false. Only a call that
      hangs while it keeps the interpreter lock cannot be noticed.

    Attributes:
        policy: The policy. Wrap it before (`bac.wrap`).
        robot: The robot.
        control_hz: Control steps per second [Hz].
        safe_action: Safe at any time: an action, `[Da]`, or a function that returns one, given the last action sent
            and the newest observation (each None before the first). For positions, the robot's current one; for
            velocities or displacements, no motion.
        on_miss: ``hold`` sends the last action again; ``safe`` sends `safe_action`.
        action_range: Lowest and highest action, each a number or `[Da]`; None for no limit.
        execute_steps: Control steps after a chunk's observation at which the next chunk should take over; by default
            the chunk's length. 1 computes chunks without a break.
        blend_steps: Control steps over which actions move from the old chunk to the new one, for a smoother robot; 0
            switches at once. Leave it 0 if a mean of two actions may be none: an angle that wraps, a gripper's switch.
        timeout_s: Longest time for a chunk [s]; a policy that takes longer has hung. Warming up may take longer.
        robot_timeout_s: Longest time for one call of `observe`, `act`, a `safe_action` that is a function, or `until`
            [s]; one that takes longer has hung. Warming up may take longer. The calls are made in one thread of their
            own. None makes them in the thread of `run`, for robots bound to it (a simulator that draws), and waits for
            ever.
        warmup: Chunks computed before time starts, at least 1, so that plans are recorded and the latency is known.
            The robot acts on the last of them first, so it must stand still until then.
        clock: The source of time.

    Raises:
        ControlError: A value is out of range.
    """

    policy: Policy
    robot: Robot
    control_hz: float = field(kw_only=True)
    safe_action: Any = field(kw_only=True)
    on_miss: Literal["hold", "safe"] = field(default="hold", kw_only=True)
    action_range: Range | None = field(default=None, kw_only=True)
    execute_steps: int | None = field(default=None, kw_only=True)
    blend_steps: int = field(default=0, kw_only=True)
    timeout_s: float = field(default=1.0, kw_only=True)
    robot_timeout_s: float | None = field(default=1.0, kw_only=True)
    warmup: int = field(default=4, kw_only=True)
    clock: Clock = field(default_factory=WallClock, kw_only=True)

    def __post_init__(self) -> None:
        checked = {
            "control_hz": as_positive("control_hz", self.control_hz),
            "timeout_s": as_positive("timeout_s", self.timeout_s),
            "blend_steps": as_count("blend_steps", self.blend_steps, 0),
            "warmup": as_count("warmup", self.warmup, 1),
            "action_range": as_range(self.action_range),
        }
        if self.robot_timeout_s is not None:
            checked["robot_timeout_s"] = as_positive("robot_timeout_s", self.robot_timeout_s)
        if self.execute_steps is not None:
            checked["execute_steps"] = as_count("execute_steps", self.execute_steps, 1)
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the loop is frozen
        if self.on_miss not in ("hold", "safe"):
            raise ControlError(f'on_miss: must be "hold" or "safe", got {self.on_miss!r}')

    def run(self, num_steps: int | None = None, *, until: Callable[[], bool] | None = None) -> Statistics:
        """Control the robot.

        Args:
            num_steps: Steps on the clock, skipped ones included; None for no end.
            until: Called after each control step; True ends the run.

        Returns:
            The measurements. The robot got its last action; nothing is sent after it.

        Raises:
            ControlError: The policy or the robot failed, and the safe action was sent. `statistics` holds the
                measurements until then; the cause is the original exception.
        """
        run = _Run(self)
        try:
            with prompt_threads():
                run.warm_up()
                run.control(inf if num_steps is None else num_steps, until)
        except BaseException as error:  # even an interrupt must not leave the robot moving
            run.stop_for(error)
            raise
        finally:
            run.close()
        return run.recorder.statistics()


class _Run:
    """The state of one run."""

    def __init__(self, loop: ControlLoop) -> None:
        self.loop = loop
        self.clock = loop.clock
        self.worker: Worker = loop.clock.worker("policy")
        patience_s = None if loop.robot_timeout_s is None else max(_WARMUP_TIMEOUT_S, loop.robot_timeout_s)
        self.robot = Deadline(loop.clock, "robot", "robot_timeout_s", patience_s)  # its first calls may connect it
        self.recorder = LoopRecorder(loop.control_hz)
        self.timeline = Timeline(loop.blend_steps)
        self.delays: deque[int] = deque(maxlen=_RECENT)
        self.action_size: int | None = None
        self.observation: Any = None
        self.last_action: Actions | None = None
        self.acted_on_s = 0.0  # time of the observation behind the current chunk
        self.too_late = 0
        self.thinking: tuple[int, float] | None = None  # observed step and its time, while a chunk is computed

    def warm_up(self) -> None:
        """Compute chunks before time starts; keep the last as that of step 0."""
        loop = self.loop
        self._reset()
        for index in range(loop.warmup):
            self.observation = self._observe()
            if index == loop.warmup - 1:  # the last warm-up chunk is the first of the run, so the policy starts fresh
                self._reset()
            begun = self.clock.now()
            self._think(0)
            outcome, self.thinking = self._wait_for_outcome(), None
            chunk = self._checked(outcome)
        if outcome.latency_s > loop.timeout_s:
            raise ControlError(
                f"policy: a chunk took {outcome.latency_s:.3f} s after warming up, longer than timeout_s = "
                f"{loop.timeout_s:g}. Wrap it (bac.wrap), or allow more: timeout_s={2 * outcome.latency_s:.2g}"
            )
        self._safe_action()  # fail now, not when it is needed
        self.delays.append(ceil(outcome.latency_s * loop.control_hz))
        self.timeline.add(chunk, 0, 0)
        self.acted_on_s = begun

    def control(self, num_steps: float, until: Callable[[], bool] | None) -> None:
        """Make control steps until the end."""
        self.robot.timeout_s = self.loop.robot_timeout_s
        ticker, recorder = Ticker(self.clock, self.loop.control_hz), self.recorder
        first_s = self.clock.now()
        while (step := ticker.wait()) < num_steps:
            recorder.jitter_s.append(ticker.lateness_s)
            recorder.missed_deadlines = ticker.missed
            recorder.duration_s = self.clock.now() - first_s
            self._take_chunk(step)
            self.observation, observed_s = self._observe(), self.clock.now()
            self._act(step)
            if self.thinking is None and step >= self._begin():
                self._think(step, observed_s)
            if step == num_steps - 1 or (until is not None and self.robot("until()", until)):
                return

    def close(self) -> None:
        """End the threads, the policy's after the chunk that it is at: the next run must not meet it in the policy."""
        if self.thinking is not None:
            self.worker.wait(max(self.clock.now(), self.thinking[1] + self.loop.timeout_s))
        self.worker.close()
        self.robot.close()

    def stop_for(self, error: BaseException) -> None:
        """Send the safe action, and attach the measurements to the error."""
        sent, self.robot.timeout_s = True, self.loop.robot_timeout_s
        try:
            self._send(self._safe_action())
        except Exception:  # run() reports the first failure, so this second one is only logged
            sent = False
            logger.exception("the safe action could not be sent")
        logger.error("control loop: stopped, the safe action was %s: %s", "sent" if sent else "NOT sent", error)
        if isinstance(error, ControlError):
            error.statistics, error.safe_action_sent = self.recorder.statistics(), sent

    def _take_chunk(self, step: int) -> None:
        """Switch to the chunk that has arrived, if one has."""
        if self.thinking is None:
            return
        observed_step, observed_s = self.thinking
        outcome = self.worker.outcome()
        if outcome is None:
            if self.clock.now() - observed_s > self.loop.timeout_s:
                raise ControlError(
                    f"policy: hung. Control step {step}: the chunk for the observation of step {observed_step} "
                    f"has not arrived after timeout_s = {self.loop.timeout_s:g} s"
                )
            return
        self.thinking, self.acted_on_s = None, observed_s
        chunk = self._checked(outcome)
        jump = self.timeline.add(chunk, observed_step, step)
        self.delays.append(step - observed_step)
        self.recorder.num_chunks += 1
        self.recorder.latency_s.append(outcome.latency_s)
        if jump is not None:
            self.recorder.discontinuity.append(jump)
        self._check_in_time(step, len(chunk), outcome.latency_s)

    def _check_in_time(self, step: int, length: int, latency_s: float) -> None:
        """Refuse a second chunk in a row that is too late for all of its actions: the robot would hold for ever."""
        # One late chunk may be a hiccup of the machine.
        self.too_late = self.too_late + 1 if self.timeline.end <= step else 0
        if self.too_late > 1:
            raise ControlError(
                f"policy: too slow. Two chunks in a row came after the time of their last action: {length} actions "
                f"last {length / self.loop.control_hz:.3f} s at {self.loop.control_hz:g} Hz, the last chunk took "
                f"{latency_s:.3f} s. Wrap the policy (bac.wrap), or lower control_hz"
            )

    def _act(self, step: int) -> None:
        action = self.timeline.action(step)
        chunk = None if action is None else self.recorder.num_chunks
        if action is None:
            self.recorder.held_steps += 1
            hold = self.loop.on_miss == "hold" and self.last_action is not None
            action = self.last_action if hold else self._safe_action()
        else:
            self.recorder.observation_age_s.append(self.clock.now() - self.acted_on_s)
        assert action is not None
        self._send(action)
        self.recorder.sent(step, action, chunk)

    def _begin(self) -> int:
        """The control step at which to begin the next chunk."""
        length = self.timeline.end - self.timeline.observed_step
        execute = min(self.loop.execute_steps or length, length)
        return self.timeline.observed_step + max(1, execute - max(self.delays))

    def _think(self, step: int, observed_s: float | None = None) -> None:
        policy, observation = self.loop.policy, snapshot(self.observation)  # the robot goes on meanwhile

        def work() -> Any:
            with _inference_mode():  # the mode is per thread, so the worker needs its own
                return policy.predict_action_chunk(observation)

        self.thinking = (step, self.clock.now() if observed_s is None else observed_s)
        self.worker.submit(work)

    def _checked(self, outcome: Outcome) -> Actions:
        if outcome.error is not None:
            raise ControlError(f"policy: raised {outcome.error!r}") from outcome.error
        chunk = as_chunk(outcome.value)
        if self.action_size not in (None, chunk.shape[1]):
            raise ControlError(f"action chunk: actions have {chunk.shape[1]} components, had {self.action_size} before")
        self.action_size = chunk.shape[1]
        check_range(chunk, self.loop.action_range)
        return chunk

    def _wait_for_outcome(self) -> Outcome:
        if (outcome := self.worker.wait(self.clock.now() + _WARMUP_TIMEOUT_S)) is None:
            raise ControlError(f"policy: hung while warming up: no answer after {_WARMUP_TIMEOUT_S:g} s")
        return outcome

    def _reset(self) -> None:
        self.worker.submit(self.loop.policy.reset)
        if (error := self._wait_for_outcome().error) is not None:
            raise ControlError(f"policy: reset() raised {error!r}") from error

    def _observe(self) -> Any:
        return self.robot("robot: observe()", self.loop.robot.observe)

    def _send(self, action: Actions) -> None:
        self.robot("robot: act()", self.loop.robot.act, action.copy())  # a driver may scale it in place
        self.last_action = action

    def _safe_action(self) -> Actions:
        safe = self.loop.safe_action
        given = self.robot("safe_action()", safe, self.last_action, self.observation) if callable(safe) else safe
        return as_action(given, self.action_size)


def _inference_mode() -> AbstractContextManager[Any]:
    """PyTorch's, where the policy has brought it: an exported one may do without."""
    torch = sys.modules.get("torch")
    return nullcontext() if torch is None else torch.inference_mode()
