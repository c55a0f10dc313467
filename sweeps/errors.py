"""Mistakes of a user, which are told in one line and end with exit code 2."""


class UserError(Exception):
    """What is wrong, the value, and what to do, in one line."""


def first_line(error: BaseException) -> str:
    """What went wrong in a library, short enough for a message of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
