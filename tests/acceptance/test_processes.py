"""A process that ends while a test looks around is nobody's fault."""

import subprocess

import psutil

from tests.acceptance.processes import listening, of_each


def test_one_that_has_ended_is_left_out() -> None:
    """The others still answer."""
    with subprocess.Popen(["sleep", "60"]) as child:
        family = [psutil.Process(), psutil.Process(child.pid)]
        assert set(of_each(family, lambda one: one.cmdline())) == {one.pid for one in family}
        child.kill()

    assert set(of_each(family, lambda one: one.cmdline())) == {family[0].pid}
    listening(family)
