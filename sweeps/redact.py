"""Hides passwords and tokens in addresses before they are printed or stored."""

import re

_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^\s'\"<>]*)@")
_SECRET = re.compile(
    r"(?P<name>[?&;][^\s=&'\"]*(?:token|secret|password|passwd|key|signature|credential)[^\s=&'\"]*=)[^\s&'\"]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` without the passwords and tokens of the addresses in it.

    USER:PASSWORD@ keeps the user. TOKEN@ is hidden whole, as a name before @ may be a token. A password may have
    slashes and @, so everything up to the last @ of a word counts as user information. Options of an address whose
    name says that they are secret, as ?token=…, lose their value.
    """
    return _SECRET.sub(r"\g<name>***", _USER_INFO.sub(_hidden, text))


def _hidden(match: re.Match[str]) -> str:
    user, colon, _ = match["user"].partition(":")
    kept = f"{user}:***" if colon and "/" not in user else "***"
    return f"{match['scheme']}{kept}@"
