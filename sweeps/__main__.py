"""The `sweeps` command: every command of the package as a subcommand."""

import typer

from sweeps import doctor, run, status, ui
from sweeps.cli import run_app
from sweeps.report import __main__ as report


def main() -> None:
    """The `sweeps` command: run, status, report, ui and doctor as subcommands."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)
    app.command("run")(run.run)
    app.command("status")(status.status)
    app.command("report")(report.report)
    app.command("ui")(ui.ui)
    app.command("doctor")(doctor.doctor)
    run_app(app, "sweeps")


if __name__ == "__main__":
    main()
