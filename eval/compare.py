"""The whole table of one task: ``python -m eval.compare policy=assembly``.

Phases (`phase=`): ``calibrate`` collects observations, calibrations and schedules. ``latency`` chooses rivals that
match BAC's latency and times every cell; it needs an idle machine. ``episodes`` plays in `workers=` processes and is
resumable. ``report`` writes into the folder `results=`. ``all`` runs every phase and computes only what is missing.

A policy that was trained by flow matching has other ways to be fast. Its table is that of `eval.experiments.flow`, or
of `eval.experiments.vla` if it sees pictures; the command says so, and becomes that command, whose options hold.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra

from eval.compared.comparison import PHASES, Comparison
from eval.report.narrative import verdict
from eval.report.publish import publish
from eval.report.table import plain_table
from eval.setup.cells import FLOW
from eval.setup.config import CONFIGS, log_to_terminal, settings_of

logger = logging.getLogger(__name__)

OF_PICTURES, OF_STATES = "eval.experiments.vla", "eval.experiments.flow"
OWN_OPTIONS = "phase", "results", "tuned", "video", "realtime_n", "few_steps", "executor"


def maker_of_flow(config: Any, typed: Sequence[str] = ()) -> str | None:
    """The module that makes the table of a flow-matching policy; None for any other policy.

    Args:
        config: ``configs/eval.yaml``, composed.
        typed: The options as they were typed.

    Raises:
        SystemExit: There is no checkpoint, or an option was typed that the other command has not.
    """
    if config.solver.name != FLOW:
        return None
    written = settings_of(config, of_many_tasks=True).checkpoint / "config.json"
    if not written.is_file():
        raise SystemExit(
            f"{config.checkpoint}: no checkpoint here. docs/train.md has the lines that record and train one; a "
            "checkpoint elsewhere: checkpoint=FOLDER"
        )
    features = json.loads(written.read_text())["input_features"]
    sees = any(feature["type"] == "VISUAL" for feature in features.values())
    maker = OF_PICTURES if sees or config.get("tasks") else OF_STATES
    if lost := [word for word in typed if word.partition("=")[0] in (*OWN_OPTIONS, "-m", "--multirun")]:
        raise SystemExit(
            f"{' '.join(lost)}: this policy's table is made by python -m {maker}, which has not this option; its own "
            f"are under {maker.rpartition('.')[2]} in configs/eval.yaml"
        )
    return maker


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="eval")
def main(config: Any) -> None:
    """Run the phases that the configuration asks for."""
    log_to_terminal()
    if config.phase not in ("all", *PHASES):
        raise SystemExit(f"phase: must be one of all, {', '.join(PHASES)}, got {config.phase!r}")
    if (maker := maker_of_flow(config, sys.argv[1:])) is not None:
        logger.info("flow matching: the table of this policy is made by python -m %s %s", maker, " ".join(sys.argv[1:]))
        os.execv(sys.executable, [sys.executable, "-m", maker, *sys.argv[1:]])
    comparison = Comparison(settings_of(config))
    wanted = PHASES if config.phase == "all" else (config.phase,)
    if "calibrate" in wanted:
        comparison.calibrate()
    if "latency" in wanted:
        comparison.measure_latency(anew=config.phase == "latency")
    if "episodes" in wanted:
        comparison.play()
    if "report" in wanted:
        rows = publish(comparison, Path(config.results), video=config.video)
        print(plain_table(rows, judged_by_score=comparison.settings.judged_by_score))
        print(*verdict(comparison), f"\nWritten to {config.results}", sep="\n")


if __name__ == "__main__":
    main()
