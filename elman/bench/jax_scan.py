"""The peer ``jax``: the same step under ``jax.lax.scan``, compiled by XLA."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.backend
import torch
from jax import numpy as jnp
from jax.nn import sigmoid
from jax.numpy import tanh
from torch import Tensor

from elman.bench.cells import CELLS
from elman.layers import Recurrent

_THREADS = "PJRT_NPROC"
"""The variable that tells JAX how many threads to have, read when its backend is made."""


class JaxCalls:
    """A network as JAX runs it: for each layer, W x for all steps at once, then a scan over time.

    It has PyTorch's number of threads: JAX's backend is made anew where it has another.
    """

    def __init__(self, cell: str, network: Recurrent, x: Tensor):
        threads = str(torch.get_num_threads())
        if os.environ.get(_THREADS) != threads:
            os.environ[_THREADS] = threads
            jax.extend.backend.clear_backends()
        step = _STEPS[cell]
        states, hidden = len(CELLS[cell](1, 1).state), network.hidden_size

        def run(layers: Any, x: Any) -> Any:
            for weights in layers:
                drive = x @ weights["ih"].T + weights["bias_ih"]
                start = (jnp.zeros((x.shape[1], hidden)),) * states

                def one(state: Any, z: Any, weights: Any = weights) -> Any:
                    new = step(weights, z, *state)
                    return new, new[0]

                _, x = jax.lax.scan(one, start, drive)
            return x

        self._x = jnp.asarray(x.detach().numpy())
        self._layers = [_weights(network, k) for k in range(network.num_layers)]
        self._forward = jax.jit(run)
        # The gradient of the sum of all outputs: what comes from above is one, as for the others.
        self._train = jax.jit(jax.grad(lambda layers, x: run(layers, x).sum(), argnums=(0, 1)))

    def forward(self) -> Tensor:
        """All steps; the output."""
        return torch.from_dlpack(jax.block_until_ready(self._forward(self._layers, self._x)))

    def train(self) -> Tensor:
        """The gradients of all weights and of x; that of x."""
        return torch.from_dlpack(jax.block_until_ready(self._train(self._layers, self._x))[1])


def _weights(network: Recurrent, layer: int) -> dict[str, Any]:
    """A layer's weights by the cell's names, those of its input in one: ``ih``, ``bias_ih``."""
    end = f"_l{layer}"
    own = {
        name.removesuffix(end): jnp.asarray(p.detach().numpy())
        for name, p in network.named_parameters()
        if name.endswith(end)
    }
    own["ih"] = own.pop("weight_ih")
    if "weight_drive" in own:
        own["ih"] = jnp.concatenate([own["ih"], own.pop("weight_drive")])
        own["bias_ih"] = jnp.concatenate([own["bias_ih"], own.pop("bias_drive")])
    return own


def _lstm(w: Any, z: Any, h: Any, c: Any) -> Any:
    i, f, g, o = jnp.split(z + h @ w["weight_hh"].T + w["bias_hh"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def _gru(w: Any, z: Any, h: Any) -> Any:
    r, u, n = jnp.split(z, 3, -1)
    of_r, of_u, of_n = jnp.split(h @ w["weight_hh"].T + w["bias_hh"], 3, -1)
    r, u = sigmoid(r + of_r), sigmoid(u + of_u)
    return ((1 - u) * tanh(n + r * of_n) + u * h,)


def _rnn(w: Any, z: Any, h: Any) -> Any:
    return (tanh(z + h @ w["weight_hh"].T + w["bias_hh"]),)


def _peephole(w: Any, z: Any, h: Any, c: Any) -> Any:
    i, f, g, o = jnp.split(z + h @ w["weight_hh"].T, 4, -1)
    of_i, of_f, of_o = jnp.split(w["weight_peephole"], 3)
    c = sigmoid(f + of_f * c) * c + sigmoid(i + of_i * c) * tanh(g)
    return sigmoid(o + of_o * c) * tanh(c), c


def _lem(w: Any, z: Any, y: Any, c: Any) -> Any:
    fast, slow, of_c, of_y = jnp.split(z, 4, -1)
    to_fast, to_slow, to_c = jnp.split(y @ w["weight_hh"].T, 3, -1)
    c = c + sigmoid(fast + to_fast) * (tanh(of_c + to_c) - c)
    y = y + sigmoid(slow + to_slow) * (tanh(of_y + c @ w["weight_recall"].T) - y)
    return y, c


_STEPS: dict[str, Callable[..., Any]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn": _rnn,
    "peephole": _peephole,
    "lem": _lem,
}
