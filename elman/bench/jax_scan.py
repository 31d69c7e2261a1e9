"""The peer ``jax``: the same step under ``jax.lax.scan``, compiled by XLA."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from elman.bench.cells import CELLS
from elman.layers import Recurrent

_THREADS = "PJRT_NPROC"
"""The variable that tells JAX how many threads to have, read when its backend is made."""


class JaxScan:
    """A network as JAX runs it: for each layer, W x for all steps at once, then a scan over time.

    It has PyTorch's number of threads: JAX's backend is made anew where it has another.
    """

    def __init__(self, cell: str, network: Recurrent, x: Tensor):
        import jax
        import jax.extend.backend

        threads = str(torch.get_num_threads())
        if os.environ.get(_THREADS) != threads:
            os.environ[_THREADS] = threads
            jax.extend.backend.clear_backends()
        step = _STEPS[cell]
        states, hidden = len(CELLS[cell].make(1, 1).state), network.hidden_size

        def run(layers: Any, x: Any) -> Any:
            for weights in layers:
                drive = x @ weights["ih"].T + weights["bias_ih"]
                start = (jax.numpy.zeros((x.shape[1], hidden)),) * states

                def one(state: Any, z: Any, weights: Any = weights) -> Any:
                    new = step(jax, weights, z, *state)
                    return new, new[0]

                _, x = jax.lax.scan(one, start, drive)
            return x

        self._jax, self._x = jax, jax.numpy.asarray(x.detach().numpy())
        self._layers = [_weights(jax, network, k) for k in range(network.num_layers)]
        self._forward = jax.jit(run)
        # The gradient of the sum of all outputs: what comes from above is one, as for the others.
        self._train = jax.jit(jax.grad(lambda layers, x: run(layers, x).sum(), argnums=(0, 1)))

    def forward(self) -> Tensor:
        """All steps; the output."""
        return self._tensor(self._forward(self._layers, self._x))

    def train(self) -> Tensor:
        """The gradients of all weights and of x; that of x."""
        return self._tensor(self._jax.block_until_ready(self._train(self._layers, self._x))[1])

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_dlpack(self._jax.block_until_ready(array))


def _weights(jax: Any, network: Recurrent, layer: int) -> dict[str, Any]:
    """A layer's weights by the cell's names, those of its input in one: ``ih``, ``bias_ih``."""
    end = f"_l{layer}"
    own = {
        name.removesuffix(end): jax.numpy.asarray(p.detach().numpy())
        for name, p in network.named_parameters()
        if name.endswith(end)
    }
    own["ih"] = own.pop("weight_ih")
    if "weight_drive" in own:
        own["ih"] = jax.numpy.concatenate([own["ih"], own.pop("weight_drive")])
        own["bias_ih"] = jax.numpy.concatenate([own["bias_ih"], own.pop("bias_drive")])
    return own


def _lstm(jax: Any, w: Any, z: Any, h: Any, c: Any) -> Any:
    z = z + h @ w["weight_hh"].T + w["bias_hh"]
    i, f, g, o = jax.numpy.split(z, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
    return jax.nn.sigmoid(o) * jax.numpy.tanh(c), c


def _gru(jax: Any, w: Any, z: Any, h: Any) -> Any:
    r, u, n = jax.numpy.split(z, 3, -1)
    of_r, of_u, of_n = jax.numpy.split(h @ w["weight_hh"].T + w["bias_hh"], 3, -1)
    r, u = jax.nn.sigmoid(r + of_r), jax.nn.sigmoid(u + of_u)
    return ((1 - u) * jax.numpy.tanh(n + r * of_n) + u * h,)


def _rnn(jax: Any, w: Any, z: Any, h: Any) -> Any:
    return (jax.numpy.tanh(z + h @ w["weight_hh"].T + w["bias_hh"]),)


def _peephole(jax: Any, w: Any, z: Any, h: Any, c: Any) -> Any:
    i, f, g, o = jax.numpy.split(z + h @ w["weight_hh"].T, 4, -1)
    of_i, of_f, of_o = jax.numpy.split(w["weight_peephole"], 3)
    i, f = jax.nn.sigmoid(i + of_i * c), jax.nn.sigmoid(f + of_f * c)
    c = f * c + i * jax.numpy.tanh(g)
    return jax.nn.sigmoid(o + of_o * c) * jax.numpy.tanh(c), c


def _lem(jax: Any, w: Any, z: Any, y: Any, c: Any) -> Any:
    fast, slow, of_c, of_y = jax.numpy.split(z, 4, -1)
    to_fast, to_slow, to_c = jax.numpy.split(y @ w["weight_hh"].T, 3, -1)
    c = c + jax.nn.sigmoid(fast + to_fast) * (jax.numpy.tanh(of_c + to_c) - c)
    y = y + jax.nn.sigmoid(slow + to_slow) * (jax.numpy.tanh(of_y + c @ w["weight_recall"].T) - y)
    return y, c


_STEPS: dict[str, Any] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn": _rnn,
    "peephole": _peephole,
    "lem": _lem,
}
