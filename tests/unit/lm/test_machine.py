"""What the system tells of its processors."""

from __future__ import annotations

import platform
import sys

import pytest

from pipeline import machine

AMD = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model\t\t: 1
model name\t: AMD EPYC 9D14
flags\t\t:

processor\t: 1
vendor_id\t: Another
model name\t: Another
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A function that makes a text all that the system tells."""
    monkeypatch.setattr(machine, "_TOLD", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "a machine")
    return (tmp_path / "cpuinfo").write_text


def test_the_first_processor_is_told(told):
    told(AMD)
    assert (machine.processor_maker(), machine.processor()) == ("AuthenticAMD", "AMD EPYC 9D14")


def test_without_a_maker_there_is_none_and_the_machine_is_named(told):
    told(ARM)
    assert (machine.processor_maker(), machine.processor()) == ("", "a machine")


def test_a_system_that_tells_nothing(told):
    assert (machine.processor_maker(), machine.processor()) == ("", "a machine")


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="others need not tell who made them"
)
def test_this_machine_tells_its_maker():
    assert machine.processor_maker()
