"""What commands print for programs: one line of JSON, whatever is in it and wherever it goes."""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any


def print_json(content: Any) -> None:
    """Print ``content`` as one line of JSON; see :func:`elman.training.storage.to_json`.

    JSON is UTF-8. Where the output is not, all that is not ASCII is escaped, which is the same in
    every encoding.
    """
    from elman.training.storage import to_json

    text = to_json(content)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if codecs.lookup(encoding).name != "utf-8":
        text = json.dumps(json.loads(text))
    print(text)
