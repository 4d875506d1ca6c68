"""Keeps results of episodes in a file of JSON lines, so that a comparison that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
        self._numbers: dict[str, list[int]] = {}
        with reporting(path):
            path.touch()
            text = path.read_text(encoding="utf-8", errors="replace")
            if text and not text.endswith("\n"):  # a process was killed while it wrote; the rest of its line is lost
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        for line in text.splitlines():
            self._read(line)

    def remembered(self, ways: Iterable[Denoising], find: Callable[[], Iterable[int]]) -> Iterable[int]:
        """Numbers that were found for these ways once, or those that `find` finds now.

        What depends on the machine's clock would else be another comparison each time.
        """
        key = ",".join(sorted(map(_name, ways)))
        if key not in self._numbers:
            self._numbers[key] = sorted(find())
            self._append([{"setting": self._setting, "ways": key, "numbers": self._numbers[key]}])
        return self._numbers[key]

    def count(self, ways: Iterable[Denoising], seeds: Iterable[int]) -> int:
        """Of how many episodes the file has the result."""
        names = [_name(way) for way in ways]
        return sum((name, seed) in self._results for name in names for seed in seeds)

    def __call__(self, way: Denoising, seeds: Sequence[int], play: Callable[[], Sequence[float]]) -> Sequence[float]:
        """The results of a way's episodes: those of the file if it has all of them, else those that `play` returns."""
        name = _name(way)
        if any((name, seed) not in self._results for seed in seeds):
            results = dict(zip(seeds, play(), strict=True))
            self._append(
                {"setting": self._setting, "way": name, "seed": seed, "result": float(result)}
                for seed, result in results.items()
            )
            self._results.update({(name, seed): float(result) for seed, result in results.items()})
        return [self._results[name, seed] for seed in seeds]

    def _read(self, line: str) -> None:
        try:
            known = json.loads(line)
            if known["setting"] != self._setting:
                return
            if "numbers" in known:
                self._numbers[str(known["ways"])] = [int(number) for number in known["numbers"]]
            else:
                self._results[str(known["way"]), int(known["seed"])] = float(known["result"])
        except (ValueError, TypeError, LookupError):
            return  # half a line; its episode is played again

    def _append(self, documents: Iterable[Mapping[str, Any]]) -> None:
        with reporting(self._path), self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(document) + "\n" for document in documents)


def _name(way: Denoising) -> str:
    return _hash({**way.to_document(), "fingerprint": None, "measured": None})


def _hash(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
