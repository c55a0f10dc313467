"""Mistakes of a user, which are told in one line and end with exit code 2."""


class UserError(Exception):
    """What is wrong, the value, and what to do, in one line."""
