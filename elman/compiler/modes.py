"""What PyTorch does around a call: it may record, compile, transform, cast or profile it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import _pop_mode, _push_mode


def constant_while_compiling(function: Any) -> Any:
    """``torch.compiler.assume_constant_result``, without importing PyTorch's compiler: a second."""
    function._dynamo_marked_constant = True
    return function


def profiled(name: str) -> AbstractContextManager[Any]:
    """A block that PyTorch's profiler shows under ``name``."""
    if torch.autograd._profiler_enabled():
        return torch.profiler.record_function(name)
    return nullcontext()


def is_recorded() -> bool:
    """Whether ``torch.jit.trace``, or an exporter to ONNX that is made of it, looks on."""
    return torch._C._get_tracing_state() is not None


def in_onnx() -> bool:
    """Whether that which looks on writes ONNX, which has no operators of elman's."""
    onnx = sys.modules.get("torch.onnx")
    return is_recorded() and onnx is not None and bool(onnx.is_in_onnx_export())


@contextmanager
def unrecorded() -> Iterator[None]:
    """A block that no recorder of programs sees, ``torch.jit.trace`` or ``torch.export``."""
    state = torch._C._get_tracing_state()
    # Export sees by a mode of functions where autocast begins; those that begin inside act.
    modes = [_pop_mode() for _ in range(torch._C._len_torch_function_stack())]
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]
        for mode in reversed(modes):
            _push_mode(mode)


def is_traced(tensors: Iterable[Tensor | None]) -> bool:
    """Whether somebody watches PyTorch's operators: a compiler, a mode, a kind of tensor."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or is_transformed()
        or any(t is not None and type(t) not in (Tensor, Parameter) for t in tensors)
    )


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` runs, or differentiation in forward mode."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def is_batched(gradients: Iterable[Tensor | None]) -> bool:
    """Whether a gradient stands for many, as with ``is_grads_batched``."""
    return any(
        g is not None
        and (
            torch._C._functorch.is_batchedtensor(g)
            or torch._C._functorch.is_legacy_batchedtensor(g)
        )
        for g in gradients
    )


def is_drawn_up() -> bool:
    """Whether PyTorch writes the operations down for numbers that are not there yet."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def asserted(holds: Tensor, message: str, value: Tensor) -> Tensor:
    """``value``, in a program that ends with ``message`` where ``holds`` is false when it runs.

    A test in Python is no part of what ``torch.jit.trace`` and PyTorch's compilers make.
    """
    if is_recorded():  # an operator without an output would be dropped
        if in_onnx():
            return value
        nothing = value.detach().new_empty(0, *value.shape[1:])
        kept = torch.ops.aten._functional_assert_async.msg(holds, message, nothing)
        return torch.cat([kept, value])
    torch._assert_async(holds, message)
    return value


def operand(real: torch.dtype, device: str) -> str:
    """What products round what they multiply to: see :class:`elman.compiler.kernel.Shape`.

    Autocast and TensorFloat-32 change it on CUDA alone, and no product of float64.
    """
    if real != torch.float32:
        return "float64"
    return _rounded() if device == "cuda" else "float32"


@constant_while_compiling
def _rounded() -> str:
    if _exact.get():
        return "float32"
    if torch.is_autocast_enabled("cuda"):
        kind = torch.get_autocast_dtype("cuda")
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(kind, "float32")
    # PyTorch has a switch for recurrent networks of its own, which is on unless somebody turns it.
    switch: Any = torch.backends.cudnn.rnn
    return "float32" if switch.fp32_precision == "ieee" else "tf32"


@contextmanager
def exact(device: str) -> Iterator[None]:
    """A block in which the products of kernels on a type of device round nothing.

    PyTorch's switches stay as they are: they are other threads' too, and one that is set, if only
    to what it was, no longer follows the switch above it.
    """
    token = _exact.set(device == "cuda" or _exact.get())
    try:
        yield
    finally:
        _exact.reset(token)


_exact: ContextVar[bool] = ContextVar("exact", default=False)
