"""Finished episodes on disk, one JSON line each, so that an interrupted comparison loses only the running episodes.

A line carries the key of everything that decided the episode (`eval.setup.keys`). Results of other weights, worlds or
cells are therefore never mixed up, and the same command, run again, skips finished episodes.
"""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Generic, TypeVar

from bac.files import write_text
from eval.play.rollout import EpisodeResult

logger = logging.getLogger(__name__)
AnyResult = TypeVar("AnyResult", bound=EpisodeResult)


class EpisodeLog(Generic[AnyResult]):
    """Append-only JSONL of finished episodes.

    Args:
        path: The file. The first added episode makes it and its folder.
        kind: Class of the results.
    """

    def __init__(self, path: Path, kind: type[AnyResult] = EpisodeResult) -> None:
        self.path = path
        self._episodes: dict[str, dict[int, AnyResult]] = {}
        for line in self._complete_lines():
            record = json.loads(line)
            key = record.pop("key")
            self._episodes.setdefault(key, {})[record["seed"]] = kind(**record)

    def add(self, key: str, result: AnyResult) -> None:
        """Append one finished episode to the file."""
        self._episodes.setdefault(key, {})[result.seed] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, **asdict(result)}) + "\n")

    def episodes(self, key: str) -> dict[int, AnyResult]:
        """Finished episodes under a key, by seed."""
        return dict(self._episodes.get(key, {}))

    def _complete_lines(self) -> list[str]:
        """The complete lines. A last line without newline is half-written by a process that died, and is cut off."""
        if not self.path.exists():
            return []
        text = self.path.read_text()
        whole, _, torn = text.rpartition("\n")
        if torn:
            logger.warning("%s: the last line is torn (%d characters), cut it off", self.path, len(torn))
            write_text(self.path, whole + "\n" if whole else "")
        return [line for line in whole.split("\n") if line]
