"""Ctrl-C ends a command with one line and exit status 130."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import sys, time
from eval.setup.config import ending_in_one_line

with ending_in_one_line("stopped. Run it again"):
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
    assert process.returncode == 130
    assert errors.strip() == "stopped. Run it again."
