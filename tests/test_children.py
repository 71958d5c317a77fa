"""A command that hangs ends the wait for it, whatever it has started."""

import time

import pytest

from tests import children


def test_a_late_command_is_ended_with_its_own_children():
    """The sleeper has the pipes of the shell that started it."""
    start = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match=r"still at work after 1 s, and had printed:\nbegun"):
        children.run(["bash", "-c", "echo begun; sleep 60 & sleep 60"], timeout=1)
    assert time.monotonic() - start < 30


def test_a_command_that_fails_says_why():
    with pytest.raises(AssertionError, match="no such luck"):
        children.run(["bash", "-c", "echo no such luck >&2; exit 3"], timeout=60)
    assert children.run(["bash", "-c", "echo $WORD"], timeout=60, env={"WORD": "right"}).stdout == "right\n"
