"""Ctrl-C ends a command of the evaluation with one line, without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
from eval.setup.config import log_to_terminal

log_to_terminal()
print("ready", flush=True)
time.sleep(60)
"""


def test_an_interrupted_command_says_one_line_and_no_traceback():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT  # which a shell shows as 130
    assert errors.strip() == "stopped. Type the same command again: what is finished is not done again."
