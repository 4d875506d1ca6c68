"""``python -m bac.cli``, for when the command ``bac`` is not on the path."""

from bac.cli import main

main()
