"""The version, in a module of its own so that every part can carry it."""

__version__ = "0.1.0"
