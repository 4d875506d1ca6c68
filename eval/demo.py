"""The whole comparison on one task, in minutes: ``python -m eval.demo``.

The demo calibrates a trained transformer diffusion policy, schedules its updates, wraps it, and compares it in closed
loop with its rivals on paired episodes. It needs only the installed packages and the shipped checkpoint.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from eval.compared.comparison import Comparison
from eval.report.narrative import verdict
from eval.report.publish import publish
from eval.report.table import plain_table
from eval.setup.config import log_to_terminal
from eval.setup.settings import SHIPPED, Settings

logger = logging.getLogger(__name__)
MIN_OBSERVATIONS = 16


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.demo",
        description="Accelerate a diffusion policy by block-wise adaptive caching, and see what it costs in success.",
        epilog="Methods: dense DDPM-100 (the reference); BAC as published (S = 10 updates per block, the n = 5 most "
        "fragile blocks bubble); BAC without bubbling; BAC with its last 3 steps forced; BAC on DDIM-100; uniform and "
        "unified schedules with as many updates as BAC; DDPM, DDIM and DPM-Solver++ with as many full steps as BAC's "
        "measured latency buys; tuned timesteps. Interrupted? Run it again, it goes on where it stopped. "
        "One cell: python -m eval.run --help. The full comparison: python -m eval.compare --help.",
    )
    parser.add_argument("-n", "--episodes", type=int, default=50, help="paired episodes per method (default 50)")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each (default 2)")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder of the report")
    parser.add_argument("--quick", action="store_true", help="a few episodes and samples, to see that it works")
    parser.add_argument("--no-video", action="store_true", help="do not film dense and BAC in real time")
    return parser.parse_args(arguments)


def demo_settings(options: argparse.Namespace) -> Settings:
    """The settings of the demo's comparison."""
    return Settings(
        policy="assembly-v3",
        env="metaworld",
        task="assembly-v3",
        env_options={"task": "assembly-v3", "max_episode_steps": 300},
        realtime_options={"max_episode_steps": 500},  # for the film: waiting uses up control steps
        n=2 if options.quick else options.episodes,
        workers=options.workers,
        pool_size=25,
        num_observations=MIN_OBSERVATIONS,
        num_observation_episodes=4,
        num_spacing_draws=2,
        latency_rounds=3 if options.quick else 10,
        tuned=SHIPPED,
        outputs=options.output / "work",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo."""
    options = parse(arguments)
    log_to_terminal()
    begin = time.perf_counter()
    comparison = Comparison(demo_settings(options))
    logger.info("1/4 calibrate: watch the untouched policy on states it visits, choose each block's updates")
    comparison.calibrate()
    print(comparison.denoising(comparison.published).schedule)
    logger.info("2/4 latency: batch 1, one thread, all methods in turn")
    comparison.measure_latency()
    logger.info("3/4 closed loop: %d paired episodes per method", comparison.settings.n)
    comparison.play()
    logger.info("4/4 report")
    rows = publish(comparison, options.output, video=not options.no_video)
    print(plain_table(rows, judged_by_score=False))
    print(*verdict(comparison), sep="\n")
    minutes = (time.perf_counter() - begin) / 60
    print(f"\n{options.output}/report.md and pictures, after {minutes:.1f} minutes.")


if __name__ == "__main__":
    main()
