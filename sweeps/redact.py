"""What may be printed of a URI: never the password in it."""

import re

_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s]*@")


def redact(text: str) -> str:
    """`text` with the password of every SCHEME://USER:PASSWORD@HOST replaced."""
    return _PASSWORD.sub(r"\1:***@", text)
