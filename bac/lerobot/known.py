"""Which policies are replayed without being asked to: those that `bac` knows and has replayed bit for bit."""

from __future__ import annotations

from bac.adapters import ADAPTERS
from bac.adapters.host import dotted_name
from bac.adapters.lerobot import REFUSED
from bac.adapters.lerobot.names import POLICIES

NOT_REPLAYED = {
    POLICIES["lingbot_va"]: "it keeps every chunk in a cache, and looks in Python for places that are free in it, so "
    "no two chunks of an episode are the same program.",
}


def why_not_replayed(policy: object) -> str | None:
    """The reason why a policy is not tried at all, as a sentence; None if it may be.

    A preparation calls the sampler several times. That is harmless only if the sampler keeps nothing from call to call,
    which `bac` knows of the policies in its tables alone.
    """
    for name in map(dotted_name, type(policy).__mro__):
        if (reason := REFUSED.get(name) or NOT_REPLAYED.get(name)) is not None:
            return reason
        if name in ADAPTERS:
            return None
    return "bac does not know it. To replay it all the same, in a script of your own: bac.wrap(policy)"
