"""Packs data and scripts into the page: compressed, as text that needs no escaping.

The content of a page is untrusted text. Packed, it cannot end a script element, and the page's script reads it with
`JSON.parse` alone.
"""

import base64
import dataclasses
import gzip
import json
from typing import Any


def packed(content: bytes) -> str:
    """Bytes as base64 of gzip; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def packed_json(value: Any) -> str:
    """A dataclass, or lists and dictionaries of finite numbers, texts and None, as packed JSON."""
    text = json.dumps(value, default=dataclasses.asdict, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return packed(text.encode())
