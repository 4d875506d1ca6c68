"""One policy in eight ways and one that is told its task in words, in minutes: ``python -m eval.demo``.

The demo replays a trained transformer diffusion policy as it is, then compares it with caches, fewer steps and their
rivals on paired episodes: in a world that waits for the policy, and in one that does not. Then a SmolVLA does ten tasks
from pictures and sentences, with its own steps and with the few that are fitted to it. It needs only the installed
packages and the shipped checkpoints.
"""

import argparse
import logging
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from eval.compared.comparison import Comparison
from eval.play.visit import visited
from eval.setup.config import log_to_terminal
from eval.setup.settings import CALIBRATION_SEED, SHIPPED, Settings
from eval.showcase.telling import draw, film, plain, recommendation, report, table
from eval.showcase.ways import Showcase, replay_alone
from eval.showcase.words import Told

logger = logging.getLogger(__name__)
MIN_OBSERVATIONS = 16


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.demo",
        description="Run one diffusion policy in eight ways: as it is, replayed, with BAC (the paper's cache), with a "
        "cache that all blocks share, with fewer steps, and with the few fitted steps that bac tune found. See what "
        "each costs in success, in a world that waits for the policy and in one that does not. Then see a SmolVLA do "
        "ten tasks from pictures and sentences, with its own steps and with fitted ones.",
        epilog="Interrupted? Run it again, it goes on where it stopped. One way: python -m eval.run --help. The full "
        "comparison: python -m eval.compare --help.",
    )
    parser.add_argument("-n", "--episodes", type=int, default=40, help="paired episodes of each way (default 40)")
    parser.add_argument("--late", type=int, default=15, help="episodes in the world that does not wait (default 15)")
    parser.add_argument("--told", type=int, default=2, help="paired episodes of each task told in words (default 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each (default 2)")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder of the report")
    parser.add_argument("--quick", action="store_true", help="a few episodes and samples, to see that it works")
    parser.add_argument("--no-video", action="store_true", help="make no film")
    return parser.parse_args(arguments)


def demo_settings(options: argparse.Namespace) -> Settings:
    """The settings of the demo's comparison."""
    return Settings(
        policy="assembly-v3",
        env="metaworld",
        task="assembly-v3",
        env_options={"task": "assembly-v3", "max_episode_steps": 300},
        realtime_options={"max_episode_steps": 500},  # a late policy takes longer
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
    warnings.simplefilter("ignore")  # other people's, which say nothing about the comparison
    os.environ["PYTHONWARNINGS"] = "ignore"  # the workers' too
    show(options)


def show(options: argparse.Namespace) -> None:
    """Measure, play and tell."""
    begin = time.perf_counter()
    comparison = Comparison(demo_settings(options))
    settings, config = comparison.settings, comparison.loaded.policy.config
    logger.info(
        "1/5 replay alone: %s of %s, %d denoising steps a chunk; nothing is left out",
        type(comparison.loaded.policy).__name__, settings.task, config.num_inference_steps or 100,
    )  # fmt: skip
    one = visited(comparison.loaded, settings.make_env, CALIBRATION_SEED, 1, episodes=1)
    before, after = replay_alone(comparison, one)
    logger.info(
        "    a chunk took %.0f ms and takes %.0f ms: %.1f times faster, %.1f instead of %.1f chunks per second, and "
        "every action is the same, bit for bit",
        before, after, before / after, 1e3 / after, 1e3 / before,
    )  # fmt: skip
    logger.info("2/5 calibrate the caches, choose the rivals, time eight ways in turns")
    showcase = Showcase(comparison, min(options.late, settings.n))
    for way in showcase.ways:
        logger.info("    %-48s %6.1f ms, %5.1f chunks per second", way.title, way.latency.p50_ms, way.hz)
    logger.info("3/5 play %d + %d paired episodes of each way", settings.n, showcase.num_late)
    showcase.play()
    told = Told.of(1 if options.quick else options.told, settings.outputs)
    tasks = len(told.many.worlds)
    logger.info("4/5 a SmolVLA, from a picture and a sentence: %d tasks, %d episodes each", tasks, told.many.settings.n)
    told.play()
    logger.info("5/5 picture, films, report")
    draw(options.output / "ways.png", showcase)
    if not options.no_video:
        film(options.output, showcase)
        told.film(options.output)
    report(options.output, showcase, told)
    minutes = (time.perf_counter() - begin) / 60
    for rows in (table(showcase), told.rows()):
        print(plain(list(rows)), end="\n\n")
    films = "" if options.no_video else " and the films realtime.mp4 and words.mp4"
    print(f"{options.output}/report.md, ways.png{films}, after {minutes:.1f} minutes.\n")
    print(*recommendation(showcase), told.recommendation(), sep="\n")


if __name__ == "__main__":
    main()
