"""Closed loop of an export: the policy and every file of the folder, on the same worlds and the same draws.

Episodes run one at a time, because an export's shapes are fixed, and because a batch of another size rounds otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import bac
from bac.certificate import file_hash
from bac.errors import MismatchError
from bac.exported.policy import FILES
from bac.fingerprint import weights_hash
from eval.measure.intervals import paired_score_difference
from eval.play.records import EpisodeLog
from eval.play.rollout import EnvPool, EpisodeResult, play
from eval.setup.batches import Batch
from eval.setup.keys import comparison_key
from eval.setup.settings import Settings

REPLAY = bac.Replay(record="first")
_SAME = 1e-9  # of scores: the world sums areas in an order that changes from process to process


@dataclass(frozen=True)
class Player:
    """Who plays: a policy with its processors, as `play` takes one, and the key of its finished episodes."""

    loaded: Any
    key: str


def open_files(folder: Path, *, is_normalised: bool) -> dict[str, bac.exported.ExportedPolicy]:
    """Every exported file of a folder, by name, on one thread."""
    card = bac.exported.Card.load(folder)
    options: dict[str, Any] = {"is_normalised": is_normalised, "num_threads": 1}
    return {name: bac.exported.load(folder, file=name, **options) for name in FILES[card.format] if name in card.hashes}


def as_loaded(policy: bac.exported.ExportedPolicy) -> Any:
    """An export as `play` takes a policy: it normalises by its card, so its processors do nothing."""

    def predict(batch: Batch, generator: Sequence[torch.Generator]) -> Any:
        return policy.predict_action_chunk(batch, generator=generator[0])

    config = SimpleNamespace(n_obs_steps=policy.card.n_obs_steps)
    taken = SimpleNamespace(predict_action_chunk=predict, reset=policy.reset, eval=lambda: None, config=config)
    return SimpleNamespace(policy=taken, preprocessor=lambda batch: batch, postprocessor=lambda chunk: chunk)


def play_export(settings: Settings, folder: Path) -> dict[str, list[EpisodeResult]]:
    """Episodes of the policy and of every file of its export. Finished ones are kept and not played again.

    Args:
        settings: Policy, world and seeds. The policy follows the export's ``bac.json``, replayed.
        folder: What ``bac export`` wrote.

    Raises:
        MismatchError: The export is of other weights, of several observations at once, or lacks statistics.
        BacError: See `bac.exported.load`.
    """
    files = open_files(folder, is_normalised=False)
    loaded = settings.load_policy()
    bac.wrap(loaded.policy, bac.load(folder / "bac.json"), replay=REPLAY)
    card = next(iter(files.values())).card
    _check(card, loaded.policy, folder, settings.policy)

    def key(file: str) -> str:
        return comparison_key(settings.identity, {"file": file, "bac.json": file_hash(folder / "bac.json")})

    players = {"replay": Player(loaded, key("replay"))}
    players |= {name: Player(as_loaded(one), key(f"{name} {card.hashes[name]}")) for name, one in files.items()}
    pool = EnvPool(settings.make_env)
    try:
        return play_in_turn(players, pool, settings.seeds, EpisodeLog(settings.folder / "exports.jsonl"))
    finally:
        pool.close()


def _check(card: bac.exported.Card, policy: Any, folder: Path, name: str) -> None:
    """Check that an export can stand for a policy in its world."""
    if card.hashes.get("weights") != weights_hash(policy):
        raise MismatchError(
            f"{folder}: was made of other weights than policy={name} has. Name its policy: policy=NAME checkpoint=CKPT"
        )
    if card.output.shape[0] != 1:
        raise MismatchError(
            f"{folder}: takes {card.output.shape[0]} observations at once; export it with --batch-size 1"
        )
    if not any(file.startswith("policy_postprocessor") for file in card.hashes):
        raise MismatchError(
            f"{folder}: holds no statistics, so its actions stay normalised; export with checkpoint=CKPT"
        )


def play_in_turn(
    players: Mapping[str, Player], pool: EnvPool, seeds: Sequence[int], log: EpisodeLog[EpisodeResult]
) -> dict[str, list[EpisodeResult]]:
    """Episodes of each player, one at a time, in order of seed; only those that the log lacks are played."""
    found = {}
    for name, player in players.items():
        missing = [seed for seed in seeds if seed not in log.episodes(player.key)]
        for result in play(player.loaded, pool, missing, pool_size=1) if missing else ():
            log.add(player.key, result)
        found[name] = [log.episodes(player.key)[seed] for seed in seeds]
    return found


def agreement(episodes: Mapping[str, Sequence[EpisodeResult]]) -> list[dict[str, Any]]:
    """Mean score of each player, its paired difference to the replay, and how many episodes have the same score."""
    replay = np.array([result.score for result in episodes["replay"]])
    rows = []
    for name, results in episodes.items():
        scores = np.array([result.score for result in results])
        same = int((abs(scores - replay) < _SAME).sum())
        rows.append({"file": name, "n": len(scores), "score": float(scores.mean()), "same_score": same})
        rows[-1]["difference"] = asdict(paired_score_difference(replay, scores))
    return rows


def agreement_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `agreement` as Markdown."""
    lines = ["| file | n | mean score | minus the replay [95 %] | same score |", "|---|---|---|---|---|"]
    for row in rows:
        value, low, high = (f"{round(row['difference'][part], 3) + 0.0:+.3f}" for part in ("value", "low", "high"))
        lines.append(
            f"| {row['file']} | {row['n']} | {row['score']:.4f} | {value} [{low}, {high}] | {row['same_score']} |"
        )
    return "\n".join(lines)
