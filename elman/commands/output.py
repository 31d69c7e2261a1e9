"""What commands print for programs: one line of JSON, whatever is in it and wherever it goes."""

from __future__ import annotations

import json
import sys
from typing import Any

from elman.training.storage import to_json


def print_json(content: Any) -> None:
    """Print ``content`` as one line of JSON; see :func:`elman.training.storage.to_json`.

    Where the output has not all of its characters, as outside UTF-8, they are escaped, so that
    nothing is lost.
    """
    text = to_json(content)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    print(text)
