"""Which device computes."""

from __future__ import annotations

import torch

from elman.errors import InputError

_KINDS = ("cpu", "cuda", "mps")


def pick(name: str) -> torch.device:
    """The device of that name; ``auto`` is the first GPU, or else the CPU.

    Raises:
        InputError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in _KINDS or (device.type == "cpu" and device.index is not None):
            raise RuntimeError(f"expected auto or one of {', '.join(_KINDS)}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"device {name!r} cannot be used ({reason}): see elman doctor for those that can."
        ) from None
    return device
