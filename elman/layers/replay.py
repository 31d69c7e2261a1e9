"""A step of a stream on a GPU as a CUDA graph: recorded once for its shapes, and then replayed.

A step of a small network takes a GPU less time than Python takes to ask for its operations one by
one. Where no gradient is wanted, the second step of the same shapes is recorded; those after it are
a copy, a replay and a copy. What is handed out is memory of its own, which no later step changes.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from elman import nested
from elman.cells.contract import Cell
from elman.cells.options import Reading
from elman.compiler.modes import is_traced
from elman.engines import choice
from elman.errors import EngineWarning, callers_level, one_line
from elman.layers.sequences import check_row

if TYPE_CHECKING:
    from elman.layers.recurrent import Recurrent

_DEVICES = ("cuda",)
_ENGINES = (None, "cuda", "torch")  # forced ones whose work on a sequence of one is a step's
_MOST = 16  # graphs of a network; each keeps memory of its own
_AGAIN = 8  # times that a network's steps are recorded anew, before it is left


class _Graph(NamedTuple):
    replay: Callable[[], None]
    read: list[Tensor]
    """x and the state before it."""
    out: Tensor
    """y and the new state, one after the other."""
    sizes: list[int]
    shapes: list[torch.Size]
    """Of each in ``out``."""
    structure: Any
    """How the state is nested; None for a tuple of tensors, as most are."""


class _Steps:
    """The recorded steps of one network."""

    def __init__(self, network: Recurrent):
        self.lock = threading.Lock()
        self.left = _AGAIN
        self.told: set[str] = set()
        self.begin(network)

    def begin(self, network: Recurrent) -> None:
        """Forget what was recorded: it holds the weights' addresses, and what the cells read."""
        self.where = _addresses(network)
        self.readings = [(Reading(cell, Cell), cell) for cell in network._noiseless]
        self.seen: dict[Any, _Graph | None] = {}
        self.failed: set[Any] = set()
        self.left -= 1

    def hold(self, network: Recurrent) -> bool:
        """Whether weights and cells are as they were recorded."""
        return self.where == _addresses(network) and all(r.holds(c) for r, c in self.readings)

    def say(self, network: Recurrent, why: str) -> None:
        """Warn, once, that steps are not recorded."""
        if why not in self.told:
            self.told.add(why)
            warnings.warn(
                f"Steps of this {type(network).__name__} run operation by operation, which is "
                f"slower: {why}.",
                EngineWarning,
                stacklevel=callers_level(),
            )


_steps: weakref.WeakKeyDictionary[Recurrent, _Steps] = weakref.WeakKeyDictionary()


def step(network: Recurrent, x: Tensor, state: Any) -> tuple[Tensor, Any] | None:
    """A step by a graph, or one that a graph can be made of; None where there is to be none."""
    if state is None or not _is_for(network, x):
        return None
    try:
        steps = _steps[network]
    except KeyError:
        steps = _steps[network] = _Steps(network)
    if steps.left <= 0:
        steps.say(network, f"what a CUDA graph holds of it has changed {_AGAIN} times")
        return None
    given = _parts(state)
    key = _key(network, x, state, given)
    with steps.lock:
        if not steps.hold(network):
            steps.begin(network)
        if key in steps.failed:
            return None
        graph = steps.seen.get(key)
        if graph is None:
            if key not in steps.seen:
                if len(steps.seen) >= _MOST:
                    steps.say(network, f"only {_MOST} shapes are recorded as CUDA graphs")
                    return None
                check_row(x, network.input_size)
                found = _run(network, x, state)  # which checks the state
                if steps.where != _addresses(network):  # cuDNN moves them where it wants them
                    steps.begin(network)
                steps.seen[key] = None
                return found
            graph = steps.seen[key] = _recorded(steps, network, x, state)
            if graph is None:
                steps.failed.add(key)
                return None
        torch._foreach_copy_(graph.read, [x, *given])
        graph.replay()
        out = graph.out.clone()
    y, *new = (
        part.view(shape) for part, shape in zip(out.split(graph.sizes), graph.shapes, strict=True)
    )
    if graph.structure is None:
        return y, tuple(new)
    parts = iter(new)
    return y, nested.map(lambda _: next(parts), graph.structure)


def _parts(state: Any) -> list[Tensor]:
    """The tensors of a state, of most states by the shortest way."""
    if type(state) is tuple and all(type(part) is Tensor for part in state):
        return list(state)
    return nested.leaves(state)


def _is_for(network: Recurrent, x: Any) -> bool:
    """Whether a graph can hold what a step of this network computes."""
    if not isinstance(x, Tensor) or x.device.type not in _DEVICES or torch.is_grad_enabled():
        return False
    return not (
        is_traced((x,))
        or network.bidirectional
        or choice.forced() not in _ENGINES
        # What acts while training acts in forward, and not in a step.
        or (network.training and _is_noisy(network))
        # Weights that were cast once are not cast again where they change.
        or torch.is_autocast_enabled(x.device.type)
        # What computes weights from others gives them another place at each step.
        or network._modules
        or network._forward_pre_hooks
        or (x.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def _is_noisy(network: Recurrent) -> bool:
    noise = any(cell.noise_size for cell in network._cells)
    return bool(network.dropout or network.weight_drop or noise)


def _run(network: Recurrent, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A step as a sequence of one, by the network's engine."""
    axis = 1 if network.batch_first and x.dim() == 2 else 0
    y, new = network._run(x.unsqueeze(axis), state, None, None, "last")
    return y.squeeze(axis), new


def _recorded(steps: _Steps, network: Recurrent, x: Tensor, state: Any) -> _Graph | None:
    # What is made in inference mode could not be written to outside of it.
    with torch.inference_mode(False), torch.no_grad():
        held, own = x.clone(), nested.map(torch.clone, state)
        made: list[Any] = []  # what is computed stays where it is as long as somebody holds it

        def work() -> None:
            y, new = _run(network, held, own)
            parts = [y, *nested.leaves(new)]
            if any(part.dtype != y.dtype for part in parts):
                raise TypeError("its output and its states are of several types")
            made[:] = [torch.cat([part.flatten() for part in parts]), new, parts]

        try:
            replay = _captured(x.device, work)
        except Exception as error:  # whatever a cell does that a graph cannot hold
            steps.say(network, f"they cannot be recorded as a CUDA graph ({one_line(error)})")
            return None
    out, new, parts = made
    flat = type(new) is tuple and all(isinstance(part, Tensor) for part in new)
    structure = None if flat else nested.map(lambda _: torch.empty(0), new)
    sizes, shapes = [part.numel() for part in parts], [part.shape for part in parts]
    return _Graph(replay, [held, *nested.leaves(own)], out, sizes, shapes, structure)


def _captured(device: torch.device, work: Callable[[], None]) -> Callable[[], None]:
    """What replays ``work`` on the GPU, which is recorded and not done."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def _key(network: Recurrent, x: Tensor, state: Any, given: list[Tensor]) -> Any:
    """What a graph is for: shapes and types, and whatever else its operations depend on."""
    switch: Any = torch.backends.cudnn.rnn
    return (
        (x.shape, x.dtype, x.device),
        type(state),
        network.training,
        network.batch_first,
        *((s.shape, s.dtype, s.device) for s in given),
        choice.forced(),
        torch.backends.cuda.matmul.fp32_precision,
        switch.fp32_precision,
        # Two streams run at once, and would write to the same memory.
        torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0,
    )


def _addresses(network: Recurrent) -> list[int]:
    held = (*network._parameters.values(), *network._buffers.values())
    return [t.data_ptr() for t in held if t is not None]
