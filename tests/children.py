"""Commands that tests start, and that end with all that they started."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(
    command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> "subprocess.CompletedProcess[str]":
    """Run a command that has to succeed; it, and what it printed.

    One that is late is killed with all its children: they have its pipes, and ``subprocess.run`` would wait for them.

    Args:
        command: and its arguments.
        timeout: seconds.
        env: the whole environment; None for this one.
        cwd: folder.
    """
    with subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        except BaseException as stop:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            if not isinstance(stop, subprocess.TimeoutExpired):
                raise
            pytest.fail(f"{command} was still at work after {timeout} s, and had printed:\n{out}\n{errors}")
    assert process.returncode == 0, f"{out}\n{errors}"
    return subprocess.CompletedProcess(command, process.returncode, out, errors)
