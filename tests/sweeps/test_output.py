"""Output that nobody reads any more, and output in ASCII."""

import io
import os
import sys

import pytest
from rich.console import Console

from sweeps.cli import LongConsole, run_app, single
from sweeps.driver.json_log import JsonLog


@pytest.fixture
def closed_pipe():
    """A stream into a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as stream:
        yield stream


def test_a_run_goes_on_without_its_output_and_says_so_once(closed_pipe, capsys):
    console = LongConsole(file=closed_pipe)
    for line in range(3):
        console.print(line)
    assert capsys.readouterr().err == "Nobody reads the output any more; the run goes on without it.\n"


def test_events_that_nobody_reads_end_no_run_either(closed_pipe, capsys):
    log = JsonLog(closed_pipe)
    for _ in range(3):
        log.write("summary", report=None)
    assert capsys.readouterr().err == "Nobody reads the output any more; the run goes on without it.\n"


def test_what_ascii_or_utf_8_cannot_say_ends_no_command(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", line_buffering=True))
    monkeypatch.setattr(sys, "argv", ["command"])

    def command() -> None:
        Console(width=100).print("Starting Ray … ▁▃█ \udcff", highlight=False)

    with pytest.raises(SystemExit) as stop:
        run_app(single(command), "command")
    assert stop.value.code == 0
    assert written.getvalue() == b"Starting Ray ? ??? ?\n"
