"""What a command says before long work, when it fails, and when it is stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from bac.errors import BacError

INTERRUPTED = 130  # exit status of a shell's command after Ctrl-C


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn an error of `bac` into its sentence and exit status 1, and Ctrl-C into a word on the files."""
    try:
        yield
    except BacError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo(
            "Stopped: files are as they were, or whole. Type the command again to start from the beginning.", err=True
        )
        raise typer.Exit(INTERRUPTED) from error


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Within the context, show on standard error what a logger of `bac` says of the work ahead."""
    told, handler = logging.getLogger(name), logging.StreamHandler()
    level, propagate = told.level, told.propagate
    told.addHandler(handler)
    told.setLevel(logging.INFO)
    told.propagate = False  # a library that set up logging would repeat it
    try:
        yield
    finally:
        told.removeHandler(handler)
        told.setLevel(level)
        told.propagate = propagate
