"""A hook of MkDocs: links to files outside docs/ become their path in the repository, and must be there.

In the repository a page links to ``../results/flow/README.md``; the built pages do not hold that file.
"""

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")
logger = logging.getLogger("mkdocs.hooks.repository_links")  # a warning fails a strict build


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Rewrite the links of one page."""

    def rewritten(match: re.Match[str]) -> str:
        words, path = match.groups()
        if not (ROOT / path).exists():
            logger.warning("%s: links to %s, which is not in the repository", page.file.src_path, path)
        return words if words in path else f"{words} (`{path}`)"

    return LINK.sub(rewritten, markdown)
