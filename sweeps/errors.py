"""The error for mistakes of a user, told in one line, and the exit codes of all commands."""

OK, INTERNAL, UNUSABLE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class UserError(Exception):
    """A mistake that the user can correct. The message says in one line what is wrong, the value, and what to do."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, to be quoted in a message of this program."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
