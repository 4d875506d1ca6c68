"""Exported runs beside the replay: ``python -m eval.experiments.export output=results/export``.

For every way to denoise and every exported file: size, time to build, error on held-out observations, latency in turns
with the replay, and the scores of closed-loop episodes. Exports are kept, so the command can be stopped and goes on.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

import bac
import envs
import policies
from bac.adapters import find_host
from bac.exporting.checking import chunks_of, error_of
from bac.tuning.batches import in_parts
from eval.measure.latency import Latency, measure
from eval.play.exported import (
    REPLAY,
    Player,
    agreement,
    agreement_table,
    as_loaded,
    open_files,
    play_in_turn,
)
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, EpisodeResult
from eval.play.visit import visited
from eval.setup.batches import Batch
from eval.setup.config import CONFIGS, env_options, log_to_terminal
from eval.setup.files import write_json
from eval.setup.keys import comparison_key
from eval.setup.provenance import provenance
from eval.setup.settings import FIDELITY_SEED

logger = logging.getLogger(__name__)
FAST = replace(REPLAY, exact=False)


class Way:
    """One way to denoise: the policy under it, replayed, and its exports.

    Args:
        name: Its name in the configuration.
        config: The configuration.
    """

    def __init__(self, name: str, config: Any) -> None:
        self.name = name
        self.checkpoint = Path(policies.CHECKPOINTS[config.checkpoint])
        self.file = config.ways[name]
        self.loaded = self.replayed(REPLAY)
        self.root = Path(config.exports) / f"{config.checkpoint}-{name}"
        self.folders = {format: self.root / format for format in config.formats}
        self.compile = name in config.compile

    @property
    def replays(self) -> dict[str, bac.Replay]:
        """Replays to measure beside the files; Inductor's, which takes minutes, only where a file is compiled too."""
        compiled = {"Replay(compile=True)": replace(FAST, compile=True)} if self.compile else {}
        return {"replay": REPLAY, "Replay(exact=False)": FAST, **compiled}

    def replayed(self, replay: bac.Replay) -> policies.LoadedPolicy:
        """The policy on its own, denoised this way and replayed so."""
        loaded = policies.load(self.checkpoint)
        bac.wrap(loaded.policy, None if self.file is None else bac.load(self.file), replay=replay)
        return loaded

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
        opened = [open_files(folder, is_normalised=is_normalised) for folder in self.folders.values()]
        return {name: policy for files in opened for name, policy in files.items()}

    def size_mb(self, file: str) -> float:
        """Size of a file with its external data [MB]."""
        return sum(path.stat().st_size for folder in self.folders.values() for path in folder.glob(f"{file}*")) / 1e6


def rows_of(way: Way, observations: Batch, *, rounds: int) -> list[dict[str, Any]]:
    """A row for every replay and every file, as plain JSON types; the exact replay is the first."""
    batches = in_parts(observations, 1)
    way.export(batches[0])
    files = way.open(is_normalised=True)
    replays = {name: way.replayed(replay).policy for name, replay in way.replays.items()}
    wanted = chunks_of(find_host(way.loaded.policy), batches, seed=0)
    latencies = latencies_of(replays, files, batches[0], rounds)
    rows = []
    for name, policy in replays.items():
        error = error_of_replay(policy, batches, wanted)
        built = {"build_s": bac.plan.plans(policy)[-1].build_s, "error": error, "num_checked": len(batches)}
        rows.append({"way": way.name, "file": name, **built, **latencies[name].to_dict()})
    for name, policy in files.items():
        error = error_of(policy, batches, wanted, seed=0)
        built = {"build_s": policy.card.build_s[name], "error": error, "num_checked": len(batches)}
        rows.append({"way": way.name, "file": name, "size_mb": way.size_mb(name), **built, **latencies[name].to_dict()})
    return rows


def error_of_replay(policy: Any, batches: Sequence[Batch], wanted: Sequence[torch.Tensor]) -> float:
    """The largest difference between replayed and interpreted chunks, relative to the largest action of all."""
    with torch.inference_mode():
        found = [find_host(policy).predict_seeded(batch, index) for index, batch in enumerate(batches)]
    differences = [float((one - other).abs().max()) for one, other in zip(found, wanted, strict=True)]
    return max(differences) / max(float(chunk.abs().max()) for chunk in wanted)


def latencies_of(replays: Mapping[str, Any], files: Mapping[str, Any], batch: Batch, rounds: int) -> dict[str, Latency]:
    """Latencies from a normalised observation to a normalised chunk, random draws included; the replay is the first."""

    def chunk_of(policy: Any) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode():
                return policy.predict_action_chunk(dict(batch))

        return call

    calls = {name: chunk_of(policy) for name, policy in {**replays, **files}.items()}
    return measure(calls, rounds=rounds, warmup=3, progress=False)


def episodes_of(way: Way, config: Any) -> dict[str, list[EpisodeResult]]:
    """Closed-loop episodes of the replay and of every file. Finished ones are kept beside the exports."""
    options = env_options(OmegaConf.to_container(config.env, resolve=True))
    opened = way.open(is_normalised=False)
    hashes = next(iter(opened.values())).card.hashes

    def key(file: str, made: str) -> str:
        return comparison_key({"file": file, "made": (hashes["weights"], hashes["bac.json"], made), "env": options})

    players = {"replay": Player(way.loaded, key("replay", ""))}
    players["Replay(exact=False)"] = Player(way.replayed(FAST), key("Replay(exact=False)", ""))
    players |= {name: Player(as_loaded(one), key(name, one.card.hashes[name])) for name, one in opened.items()}
    seeds = range(config.first_seed, config.first_seed + config.n)
    pool = EnvPool(lambda: envs.make(config.env.name, **options))
    try:
        return play_in_turn(players, pool, seeds, EpisodeLog(way.root / "episodes.jsonl"))
    finally:
        pool.close()


def table(rows: Sequence[Mapping[str, Any]], played: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| way | file | MB | built in s | error | p50 ms | p95 ms | x of replay |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = f"{row['size_mb']:.1f}" if "size_mb" in row else ""
        made = f"{size} | {row['build_s']:.0f} | {row['error']:.1e}"
        times = f"{row['p50_ms']:.2f} | {row['p95_ms']:.2f} | {row['speedup']:.2f}"
        lines.append(f"| {row['way']} | {row['file']} | {made} | {times} |")
    if played:
        lines += ["", agreement_table(played)]
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
