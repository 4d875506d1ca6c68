"""Keys of results. A key is a short hash of everything that decided a result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def comparison_key(*parts: Mapping[str, Any]) -> str:
    """A short hash of plain JSON values, the same in every process and on every machine."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
