"""The peer ``onnxruntime``: an ONNX graph of the same weights, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, checker, helper, numpy_helper
from torch import Tensor

from elman.bench.networks import STREAMED
from elman.layers import Recurrent

_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""Where ``torch.nn`` (i f g o; r z n) has the blocks that ONNX orders i o f c; z r h."""


class OnnxCalls:
    """A network as ONNX Runtime runs it, with PyTorch's number of threads.

    The graph reads ``x`` and the states before, and gives ``y`` and the states after: from one
    step to the next they go as they come, without a copy.
    """

    def __init__(self, cell: str, network: Recurrent, x: Tensor):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        # Its threads would otherwise go on spinning in elman's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            graph(cell, network).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._x = x.detach().numpy()
        names = [i.name for i in self._session.get_inputs()][1:]
        zeros = np.zeros((1, x.shape[1], network.hidden_size), np.float32)
        self._start = dict.fromkeys(names, zeros)
        _, *after = self._session.run(None, {"x": self._x, **self._start})
        self._state = dict(zip(names, after, strict=True))

    def forward(self) -> Tensor:
        """All steps; the output."""
        return torch.from_numpy(self._session.run(["y"], {"x": self._x, **self._start})[0])

    def step(self) -> Tensor:
        """A stream, step by step; the last step's output."""
        x, state = self._x[:1], self._state
        for _ in range(STREAMED):
            y, *after = self._session.run(None, {"x": x, **state})
            state = dict(zip(state, after, strict=True))
        return torch.from_numpy(y)


def graph(cell: str, network: Recurrent) -> Any:
    """A stack as an ONNX model, for any number of steps and any batch.

    Inputs ``x`` (T, B, M) and for each layer l ``h_in_l`` (and for an LSTM ``c_in_l``), (1, B, H);
    outputs ``y`` (T, B, H), ``h_out_l`` (and ``c_out_l``).
    """
    order, layers, hidden = _ORDER[cell], network.num_layers, network.hidden_size
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    states = ("h", "c") if cell == "lstm" else ("h",)
    nodes, inputs, outputs = [], ["x"], ["y"]
    constants = {"axis": np.array([1])}
    y = "x"
    for k in range(layers):

        def blocks(name: str, end: str = f"_l{k}") -> np.ndarray:
            parts = np.split(network.get_parameter(name + end).detach().numpy(), len(order))
            return np.concatenate([parts[n] for n in order])[np.newaxis]

        constants[f"W{k}"], constants[f"R{k}"] = blocks("weight_ih"), blocks("weight_hh")
        constants[f"b{k}"] = np.concatenate([blocks("bias_ih"), blocks("bias_hh")], 1)
        before, after = ([f"{state}_{way}_{k}" for state in states] for way in ("in", "out"))
        # The empty name stands for lengths: all sequences have all steps.
        read = [y, f"W{k}", f"R{k}", f"b{k}", "", *before]
        y, all_ = "y" if k + 1 == layers else f"y{k}", f"all{k}"
        nodes += [
            helper.make_node(cell.upper(), read, [all_, *after], hidden_size=hidden, **options),
            helper.make_node("Squeeze", [all_, "axis"], [y]),
        ]
        inputs += before
        outputs += after

    def values(names: list[str], width: int) -> list[Any]:
        shapes = [["T", "B", width], *[[1, "B", hidden]] * (len(names) - 1)]
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(names, shapes, strict=True)
        ]

    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(
        nodes, cell, values(inputs, network.input_size), values(outputs, hidden), held
    )
    # Not the newest version of the format: older versions of ONNX Runtime read it, too.
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model
