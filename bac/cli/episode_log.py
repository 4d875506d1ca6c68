"""Keeps results of episodes in a file of JSON lines, so that a comparison that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bac.denoising import Denoising
from bac.files import reporting


class EpisodeLog:
    """Results by way, seed and setting. A line is written as soon as an episode has ended.

    Args:
        path: The file; it is made if there is none, and only ever added to.
        setting: What else decides a result: weights, environment, groups of episodes, ... Lines of another setting
            stay and are not read.

    Raises:
        FileError: The file cannot be read or written.
    """

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        self._path, self._setting = path, _hash(dict(setting))
        self._results: dict[tuple[str, int], float] = {}
        with reporting(path):
            path.touch()
            text = path.read_text(encoding="utf-8")
            if text and not text.endswith("\n"):  # a process was killed while it wrote; the rest of its line is lost
                path.write_text(text + "\n", encoding="utf-8")
        self._results.update(self._known(text))

    def __call__(self, way: Denoising, seeds: Sequence[int], play: Callable[[], Sequence[float]]) -> Sequence[float]:
        """The results of a way's episodes: those of the file if it has all of them, else those that `play` returns."""
        name = _hash({**way.to_document(), "fingerprint": None, "measured": None})
        if any((name, seed) not in self._results for seed in seeds):
            results = dict(zip(seeds, play(), strict=True))
            lines = [
                json.dumps({"setting": self._setting, "way": name, "seed": seed, "result": float(result)})
                for seed, result in results.items()
            ]
            with reporting(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            self._results.update({(name, seed): float(result) for seed, result in results.items()})
        return [self._results[name, seed] for seed in seeds]

    def _known(self, text: str) -> Iterator[tuple[tuple[str, int], float]]:
        for line in text.splitlines():
            try:
                known = json.loads(line)
                if known["setting"] == self._setting:
                    yield (str(known["way"]), int(known["seed"])), float(known["result"])
            except (ValueError, TypeError, LookupError):
                continue  # half a line; its episode is played again


def _hash(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
