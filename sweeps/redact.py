"""Removes passwords from URIs before they are printed."""

import re

_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s]*@")


def redact(text: str) -> str:
    """`text` with the password of every SCHEME://USER:PASSWORD@HOST replaced."""
    return _PASSWORD.sub(r"\1:***@", text)
