"""``python -m bac.cli``, where the command ``bac`` is not on the path."""

from bac.cli import main

main()
