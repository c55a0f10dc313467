"""Hides passwords and tokens in addresses before they are printed or stored."""

import re
from urllib.parse import unquote, urlsplit

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://\S+")
_SECRETS = ("token", "secret", "password", "passwd", "pwd", "signature", "credential", "access_key", "accesskey")
_SECRETS += ("api_key", "apikey", "account_key", "private_key")
"""Parts of names of options with secret values."""
_PLACES = {"abfs", "abfss", "gs", "gcs", "hdfs", "viewfs"}
"""Schemes in which a name before @ is a container or a user, not a token."""
_HIDDEN = "***"


def redact(text: str) -> str:
    """`text` without the passwords and tokens of the addresses in it.

    USER:PASSWORD@ keeps the user. TOKEN@ is hidden completely. Options such as ?token=… lose their values. An unquoted
    password may contain slashes, @ and question marks; it ends at the last @.
    """
    return _ADDRESS.sub(lambda address: _redacted(address[0]), text)


def _redacted(address: str) -> str:
    scheme, _, rest = address.partition("://")
    place, options = _divided(address, rest)
    authority = place.partition("/")[0]
    user, at, host = place.rpartition("@")
    if at and (":" in authority or "@" in authority):
        place = f"{_kept(scheme, user)}@{host}"
    return f"{scheme}://{place}{_without_secrets(options)}"


def _divided(address: str, rest: str) -> tuple[str, str]:
    """Splits the part after the scheme into (place, options)."""
    place = re.split("[?#]", rest, maxsplit=1)[0]
    options = rest[len(place) :]
    try:
        urlsplit(address).port  # noqa: B018  # raises ValueError if host or port is not valid
    except ValueError:
        if "@" in options:  # then the question mark is part of a password
            place, _, host = rest.rpartition("@")
            host, options = _divided(f"x://{host}", host)
            place = f"{place}@{host}"
    return place, options


def _kept(scheme: str, user: str) -> str:
    """The part before @ with its secrets hidden."""
    name, colon, _ = user.partition(":")
    if colon:
        return _HIDDEN if "@" in name else f"{name}:{_HIDDEN}"
    return user if scheme.lower() in _PLACES else _HIDDEN


def _without_secrets(options: str) -> str:
    return "".join(map(_option, re.split("([?&;#])", options)))


def _option(text: str) -> str:
    name, equals, value = text.partition("=")
    plain = unquote(value)
    if not equals or not value:
        return text
    if name.lower() in {"key", "sig", "auth"} or any(secret in name.lower().replace("-", "_") for secret in _SECRETS):
        return f"{name}={_HIDDEN}"
    if "://" in plain:
        hidden = redact(plain)
        return text if hidden == plain else f"{name}={hidden}"
    return f"{name}={_HIDDEN}@{plain.rpartition('@')[2]}" if "@" in plain else text
