"""The `sweeps` command: every command of the package as a subcommand."""

import typer

from sweeps import doctor, export, load, rates, run, status, ui
from sweeps.cli import run_app
from sweeps.report import __main__ as report

COMMANDS = {
    "run": run.run,
    "status": status.status,
    "report": report.report,
    "export": export.export,
    "load": load.load,
    "ui": ui.ui,
    "doctor": doctor.doctor,
    "rates": rates.rates,
}


def main() -> None:
    """The `sweeps` command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)
    for name, command in COMMANDS.items():
        app.command(name)(command)
    run_app(app, "sweeps")


if __name__ == "__main__":
    main()
