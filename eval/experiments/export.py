"""Exported runs beside the replay: ``python -m eval.experiments.export output=results/export``.

For every way to denoise and every exported file: size, time to build, error on held-out observations, latency in turns
with the replay, and the scores of closed-loop episodes. Exports are kept, so the command can be stopped and goes on.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf

import bac
import envs
import policies
from bac.adapters import find_host
from bac.exported.policy import FILES
from bac.exporting.checking import chunks_of, error_of
from bac.tuning.batches import in_parts
from eval.measure.intervals import paired_score_difference
from eval.measure.latency import Latency, measure
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, EpisodeResult, play
from eval.play.visit import visited
from eval.setup.batches import Batch
from eval.setup.config import CONFIGS, env_options, log_to_terminal
from eval.setup.files import write_json
from eval.setup.keys import comparison_key
from eval.setup.provenance import provenance
from eval.setup.settings import FIDELITY_SEED

logger = logging.getLogger(__name__)
REPLAY = bac.Replay(record="first")


class Way:
    """One way to denoise: the policy under it, replayed, and its exports.

    Args:
        name: Its name in the configuration.
        config: The configuration.
    """

    def __init__(self, name: str, config: Any) -> None:
        self.name = name
        self.checkpoint = Path(policies.CHECKPOINTS[config.checkpoint])
        self.loaded = policies.load(self.checkpoint)
        file = config.ways[name]
        bac.wrap(self.loaded.policy, None if file is None else bac.load(file), replay=REPLAY)
        self.root = Path(config.exports) / f"{config.checkpoint}-{name}"
        self.folders = {format: self.root / format for format in config.formats}
        self.compile = name in config.compile

    def export(self, batch: Batch) -> None:
        """Make the exports that are missing."""
        for format, folder in self.folders.items():
            if not (folder / "card.json").is_file():
                logger.info("%s: exporting %s", self.name, format)
                folder.parent.mkdir(parents=True, exist_ok=True)
                options = {"format": format, "compile": self.compile, "checkpoint": self.checkpoint}
                logger.info(bac.export(self.loaded.policy, batch, folder, **options))

    def open(self, *, is_normalised: bool) -> dict[str, Any]:
        """Exported file to the policy that runs it, on one thread."""
        found = {}
        for folder in self.folders.values():
            card = bac.exported.Card.load(folder)
            for name in FILES[card.format]:
                if name in card.hashes:
                    found[name] = bac.exported.load(folder, file=name, is_normalised=is_normalised, num_threads=1)
        return found

    def size_mb(self, file: str) -> float:
        """Size of a file with its external data [MB]."""
        return sum(path.stat().st_size for folder in self.folders.values() for path in folder.glob(f"{file}*")) / 1e6


def rows_of(way: Way, observations: Batch, *, rounds: int) -> list[dict[str, Any]]:
    """A row for the replay and one for every file, as plain JSON types."""
    batches = in_parts(observations, 1)
    way.export(batches[0])
    files = way.open(is_normalised=True)
    wanted = chunks_of(find_host(way.loaded.policy), batches, seed=0)
    errors = {name: error_of(policy, batches, wanted, seed=0) for name, policy in files.items()}
    latencies = latencies_of(way, files, batches[0], rounds)
    rows = [{"way": way.name, "file": "replay", **latencies["replay"].to_dict()}]
    for name, policy in files.items():
        built = {"size_mb": way.size_mb(name), "build_s": policy.card.build_s[name], "error": errors[name]}
        rows.append({"way": way.name, "file": name, **built, "num_checked": len(batches), **latencies[name].to_dict()})
    return rows


def latencies_of(way: Way, files: Mapping[str, Any], batch: Batch, rounds: int) -> dict[str, Latency]:
    """Latencies from a normalised observation to a normalised chunk, random draws included; the replay is the first."""

    def replay() -> Any:
        with torch.inference_mode():
            return way.loaded.policy.predict_action_chunk(dict(batch))

    calls = {name: (lambda policy=policy: policy.predict_action_chunk(batch)) for name, policy in files.items()}
    return measure({"replay": replay, **calls}, rounds=rounds, warmup=3, progress=False)


def episodes_of(way: Way, config: Any) -> dict[str, list[EpisodeResult]]:
    """Closed-loop episodes of the replay and of every file, one at a time, on the same worlds and the same draws.

    Finished ones are kept beside the exports.
    """
    options = env_options(OmegaConf.to_container(config.env, resolve=True))
    seeds = range(config.first_seed, config.first_seed + config.n)
    log = EpisodeLog(way.root / "episodes.jsonl", EpisodeResult)
    pool, found = EnvPool(lambda: envs.make(config.env.name, **options)), {}
    opened = way.open(is_normalised=False)
    players = {"replay": way.loaded, **{name: as_loaded(policy) for name, policy in opened.items()}}
    try:
        for name, player in players.items():
            hashes = next(iter(opened.values())).card.hashes if name == "replay" else opened[name].card.hashes
            made = hashes["weights"], hashes["bac.json"], hashes.get(name)
            key = comparison_key({"file": name, "made": made, "env": options})
            missing = [seed for seed in seeds if seed not in log.episodes(key)]
            logger.info("%s: %d episodes of %s", way.name, len(missing), name)
            for result in play(player, pool, missing, pool_size=1) if missing else ():
                log.add(key, result)
            found[name] = [log.episodes(key)[seed] for seed in seeds]
        return found
    finally:
        pool.close()


def as_loaded(policy: Any) -> Any:
    """An export as `play` takes a policy: it normalises by its card, so its processors do nothing."""

    def predict(batch: Batch, generator: Sequence[torch.Generator]) -> Any:
        return policy.predict_action_chunk(batch, generator=generator[0])

    config = SimpleNamespace(n_obs_steps=policy.card.n_obs_steps)
    taken = SimpleNamespace(predict_action_chunk=predict, reset=policy.reset, eval=lambda: None, config=config)
    return SimpleNamespace(policy=taken, preprocessor=lambda batch: batch, postprocessor=lambda chunk: chunk)


def agreement(episodes: Mapping[str, Sequence[EpisodeResult]]) -> list[dict[str, Any]]:
    """Mean score of each player, its paired difference to the replay, and how many episodes have the same score.

    Scores are compared to 1e-9, as the world computes areas in an order that changes from process to process.
    """
    replay = np.array([result.score for result in episodes["replay"]])
    rows = []
    for name, results in episodes.items():
        scores = np.array([result.score for result in results])
        difference = paired_score_difference(replay, scores)
        same = int((abs(scores - replay) < 1e-9).sum())
        rows.append({"file": name, "n": len(scores), "score": float(scores.mean()), "same_score": same})
        rows[-1]["difference"] = asdict(difference)
    return rows


def table(rows: Sequence[Mapping[str, Any]], played: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| way | file | MB | built in s | error | p50 ms | p95 ms | x of replay |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        made = f"{row['size_mb']:.1f} | {row['build_s']:.0f} | {row['error']:.1e}" if "error" in row else "| | 0"
        times = f"{row['p50_ms']:.2f} | {row['p95_ms']:.2f} | {row['speedup']:.2f}"
        lines.append(f"| {row['way']} | {row['file']} | {made} | {times} |")
    if played:
        lines += ["", "| file | n | mean score | minus the replay | same score |", "|---|---|---|---|---|"]
        for row in played:
            d = row["difference"]
            difference = f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
            lines.append(f"| {row['file']} | {row['n']} | {row['score']:.4f} | {difference} | {row['same_score']} |")
    return "\n".join(lines) + "\n"


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="export")
def main(config: Any) -> None:
    """Export, measure, play, print the table, and write it if ``output=`` is set."""
    log_to_terminal()
    torch.set_num_threads(1)
    options = env_options(OmegaConf.to_container(config.env, resolve=True))
    loaded = policies.load(policies.CHECKPOINTS[config.checkpoint])
    observations = visited(loaded, lambda: envs.make(config.env.name, **options), FIDELITY_SEED, config.observations)
    rows, played = [], []
    for name in config.ways:
        way = Way(name, config)
        rows += rows_of(way, observations, rounds=config.rounds)
        logger.info(table(rows, played))
        if name == config.played and config.n:
            played = agreement(episodes_of(way, config))
    text = table(rows, played)
    logger.info(text)
    if config.output:
        folder = Path(config.output)
        write_json(folder / "table.json", {"files": rows, "episodes": played})
        write_json(folder / "provenance.json", provenance())
        (folder / "table.md").write_text(text)


if __name__ == "__main__":
    main()
