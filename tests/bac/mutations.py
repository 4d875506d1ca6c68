"""Ways to damage a file: in its bytes, as a disk does, and in its values, as an editor or an attacker does."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

# Values of every type that JSON has, and those numbers that break arithmetic.
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**400, 1e308, -1e308, 5e-324, 0.5]),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), "", "NaN", "hold", "taylor-9", "\n\x00", "é" * 99]),
    st.sampled_from([[], {}, [[]], [None], {"name": "hold"}, [0], [0, 0], [3, 2, 1], [float("nan")] * 5]),
    st.integers(-3, 100_000_000),
    st.floats(),
    st.text(max_size=5),
)


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every container in a document with each of its keys or indices."""
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    return [place for key in keys for place in [(document, key), *places(document[key])]]


@st.composite
def edited(draw: st.DrawFn, original: Any) -> Any:
    """The document with one to three of its parts replaced, removed, scaled, repeated or reversed."""
    document = copy.deepcopy(original)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        here = places(document)
        if not here:
            break
        container, key = here[draw(st.integers(0, len(here) - 1))]
        how = draw(st.sampled_from(["replace", "replace", "remove", "scale", "repeat", "reverse"]))
        value = container[key]
        if how == "remove":
            del container[key]
        elif how == "scale" and isinstance(value, (int, float)) and abs(value) < 1e300:
            container[key] = value * draw(st.sampled_from([-1, 10, 1e6, 1e30]))
        elif how == "repeat" and isinstance(container, list):
            container.insert(key, copy.deepcopy(value))
        elif how == "reverse" and isinstance(value, list):
            value.reverse()
        else:
            container[key] = copy.deepcopy(draw(VALUES))  # the next edit may be within it
    return document


@st.composite
def torn(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with a stretch replaced, removed or added, or cut off."""
    start = draw(st.integers(0, len(content)))
    stop = draw(st.sampled_from([start, start + 1, start + 2, start + 40, len(content)]))
    new = draw(
        st.one_of(st.binary(max_size=3), st.sampled_from([b"9" * 40, b"[" * 5000, b"{", b"\xff\xfe", b"e9", b"-"]))
    )
    return content[:start] + new + content[stop:]


def damaged(document: Any) -> st.SearchStrategy[bytes]:
    """A JSON file after damage of either kind."""
    whole = json.dumps(document)
    return st.one_of(edited(document).map(lambda changed: json.dumps(changed).encode()), torn(whole.encode()))
