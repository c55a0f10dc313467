"""Helpers of all commands: one-line messages for a user's mistakes, exit codes, output, and tables."""

import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from sweeps.errors import INTERRUPTED, OK, UNUSABLE, UserError
from sweeps.redact import redact

DEVICES = ("auto", "cpu", "cuda")
Studies = Annotated[
    Path | None,
    typer.Option(
        "--studies",
        metavar="DIR",
        envvar="VAE_SWEEPS_STUDIES",
        help="A folder with studies of your own: Python files that define SWEEPS.",
    ),
]
"""The option for a folder with studies of the user's own."""
exit_code = UNUSABLE
"""The exit code of the last command. `sweeps.on_ray.watch` ends the process with it if Ray cannot end normally."""
_UNLIMITED = 10_000
"""Width in columns of output that does not go to a terminal."""


def run_app(app: typer.Typer, prog_name: str) -> None:
    """Runs a Typer app and exits; a mistake of the user is one line on stderr and exit code 2.

    SIGTERM ends the program as Ctrl-C does.
    """
    gc.set_threshold(20_000, 20, 20)  # a second less: imported libraries make many objects, and all stay
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # it may be ASCII, and names of files may be no text
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(prog_name=prog_name, standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = _complain(prog_name, "interrupted", INTERRUPTED)
    except (typer.TyperException, UserError) as error:
        code = _complain(prog_name, getattr(error, "format_message", error.__str__)())
    finally:
        signal.signal(signal.SIGTERM, previous)
    global exit_code
    exit_code = code or OK
    sys.exit(exit_code)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _complain(prog_name: str, message: str, code: int = UNUSABLE) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"{prog_name}: {redact(' '.join(message.split()))}", file=sys.stderr)
    return code


class LongConsole(Console):
    """A console whose program goes on when nobody reads its output any more, as in `… | head`."""

    def on_broken_pipe(self) -> None:
        go_on_without(self.file)


def go_on_without(stream: IO[str]) -> None:
    """Sends the rest of a stream nowhere, after its reader has gone; says so on standard error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    with contextlib.suppress(BrokenPipeError):
        print("Nobody reads the output any more; the run goes on without it.", file=sys.stderr)


def single(function: Callable[..., int | None]) -> typer.Typer:
    """A Typer app of one command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(function)
    return app


def given(context: typer.Context, leave_out: Collection[str] = ()) -> tuple[str, ...]:
    """The words of a command line that repeats the arguments and options of a call.

    Args:
        context: context of the call.
        leave_out: names of parameters that are not repeated.
    """
    words: list[str] = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in leave_out or source is None or source.name not in ("COMMANDLINE", "ENVIRONMENT"):
            continue
        value = context.params[parameter.name]
        option = [max(parameter.opts, key=len)] if parameter.param_type_name == "option" else []
        if value is True:
            words += option
        else:
            for each in value if isinstance(value, list | tuple) else [value]:
                words += [*option, str(each)]
    return tuple(words)


def fitting(
    console: Console,
    headings: Mapping[str, JustifyMethod],
    rows: Sequence[Sequence[RenderableType]],
    *,
    total: bool = False,
) -> RenderableType:
    """A table, or one paragraph a row on a terminal that is too narrow. No cell is ever cut.

    Args:
        headings: headings of the columns, and how each column is justified.
        rows: cells of each row. Paragraphs leave out cells that are not text, such as bars.
        total: whether the last row sums up the others.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading, justify in headings.items():
        table.add_column(heading, justify=justify, no_wrap=True)
    for index, row in enumerate(rows):
        table.add_row(
            *(Text(cell) if isinstance(cell, str) else cell for cell in row),
            end_section=total and index == len(rows) - 2,
        )
    if not console.is_terminal or natural_width(console, table) <= console.width:
        return table
    return Group(*(Text(_paragraph(list(headings), row)) for row in rows))


def natural_width(console: Console, renderable: RenderableType) -> int:
    """Width in columns if no line is broken."""
    return Measurement.get(console, console.options.update(max_width=_UNLIMITED), renderable).maximum


def show(console: Console, renderable: RenderableType) -> None:
    """Prints something. Lines are broken only on a terminal, at its width."""
    wide = console if console.is_terminal else Console(file=console.file, width=_UNLIMITED)
    wide.print(renderable)


def _paragraph(headings: Sequence[str], row: Sequence[RenderableType]) -> str:
    name, *cells = zip(headings, row, strict=True)
    parts = [f"{heading} {cell}" for heading, cell in cells if isinstance(cell, str) and cell]
    return f"{name[1]}: {', '.join(parts)}"


def check_device(device: str) -> None:
    """Raises UserError if `device` is not a choice of --device."""
    if device not in DEVICES:
        raise UserError(f"--device must be one of {', '.join(DEVICES)}, got {device!r}")
