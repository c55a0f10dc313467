"""Mistakes of a user, told in one line, and the exit codes of all commands."""

OK, INTERNAL, UNUSABLE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class UserError(Exception):
    """What is wrong, the value, and what to do, in one line."""


def first_line(error: BaseException) -> str:
    """What went wrong in a library, short enough for a message of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
