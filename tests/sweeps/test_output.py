"""Output that nobody reads any more, output in ASCII, and lines while something takes long."""

import io
import os
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from scripted import SMALL

from sweeps.cli import LongConsole, run_app, single
from sweeps.driver import progress
from sweeps.driver.json_log import JsonLog
from sweeps.driver.waiting import waiting
from sweeps.planning.plan import Plan


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


def test_a_long_epoch_is_told_twice_a_minute(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    written = io.StringIO()
    view = progress.Progress(Console(file=written, width=200), Plan(SMALL))
    with view:
        view.started(Plan(SMALL).members["grid"])
        for _ in range(3100):  # a little more than five minutes
            now += 0.1
            view.tick()
        lines = written.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("0/15 done, 8 running, 0 failed; 30 s, starting")


def test_a_long_end_is_told_now_and_then():
    written = io.StringIO()
    with waiting(Console(file=written), "MLflow is being completed", every_s=0.05):
        time.sleep(0.5)
    told = written.getvalue()
    assert told.count("MLflow is being completed (") >= 2
    time.sleep(0.2)
    assert written.getvalue() == told
