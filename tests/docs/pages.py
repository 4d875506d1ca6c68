"""The code blocks of a page, and how they are run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/install.md", "docs/first-speedup.md", "docs/lerobot.md")
"""The way of a newcomer; every block of code on it is run, or says why not."""

_FENCE = re.compile(r"(?:<!-- not run: ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
CODE = ("python", "bash")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Its page, from the repository's root.
        language: As behind the fence; empty if there is none.
        text: What is in it.
        why_not: Why it is not run; None if it is.
    """

    page: str
    language: str
    text: str
    why_not: str | None

    @property
    def commands(self) -> list[str]:
        """The lines of a terminal, without comments."""
        return [line for line in (re.sub(r"\s+#.*", "", line).strip() for line in self.text.splitlines()) if line]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = _FENCE.findall((ROOT / page).read_text())
    return [Block(page, language, text, why or None) for why, language, text in found]
