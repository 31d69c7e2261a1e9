"""Autoregression: linear, and by a network with external input."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from elman.cells import delay
from elman.cells.sizes import positive
from elman.errors import InputError
from elman.layers.recurrent import Recurrent
from elman.layers.sequences import check_types
from elman.layers.states import States


class AR(nn.Module):
    """Autoregression of order K: each value is a linear function of the K before it (Yule, 1927).

    y_t = w_0 + W_1 y_{t−1} + … + W_K y_{t−K} + ε_t    ε_t ~ N(0, σ²)

    Fitted by least squares with :meth:`fit`, or by gradient: minimise the error of
    ``model(series)`` as a forecast of ``series[K:]``. Its parameters are ``weight`` (S, K·S), which
    multiplies the values before side by side, the oldest first, and ``bias`` (S).

    Args:
        order: K.
        size: S, the width of a value; 1 by default.
        device, dtype: of the weights.

    Attributes:
        noise: σ (S), the standard deviation of what the last fit left unexplained; 0 before it.

    Raises:
        InputError: an argument is not a positive integer.
    """

    noise: Tensor

    def __init__(
        self,
        order: int,
        size: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.order, self.size = order, size = positive("order", order), positive("size", size)
        self.weight = nn.Parameter(torch.empty(size, order * size, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(size, device=device, dtype=dtype))
        self.register_buffer("noise", torch.zeros_like(self.bias))
        bound = (order * size) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, series: Tensor) -> Tensor:
        """The forecast, one step ahead, of every value but the first K.

        Args:
            series: (T, …, S), T > K.

        Returns:
            (T − K, …, S): the forecasts of ``series[K:]``.

        Raises:
            InputError: the shape does not fit.
        """
        return linear(self._windows(series, self.order + 1)[:-1], self.weight, self.bias)

    @torch.no_grad()
    def fit(self, series: Tensor) -> Self:
        """Set weights, bias and noise to the least-squares solution.

        Args:
            series: (T, …, S), T > K; with more axes, that many series of one law.

        Raises:
            InputError: the shape does not fit, or a value is not finite.
        """
        # On the CPU in double precision: GPUs have no solver for windows of deficient rank.
        if isinstance(series, Tensor):
            series = series.detach().to("cpu", torch.float64)
        windows = self._windows(series, self.order + 1)[:-1].flatten(0, -2)
        if not bool(series.isfinite().all()):
            count = int((~series.isfinite()).sum())
            raise InputError(
                f"a series must be finite, received {count} of {series.numel()} values that are "
                "not: fill them in or leave them out."
            )
        target = series[self.order :].flatten(0, -2)
        design = torch.cat([windows, windows.new_ones(len(windows), 1)], -1)
        solution = torch.linalg.lstsq(design, target, driver="gelsd").solution
        self.weight.copy_(solution[:-1].t())
        self.bias.copy_(solution[-1])
        self.noise.copy_((target - design @ solution).square().mean(0).sqrt())
        return self

    def forecast(self, series: Tensor, steps: int) -> Tensor:
        """The values that follow, each forecast from those before it, forecasts included.

        Args:
            series: (T, …, S), T ≥ K.
            steps: how many.

        Returns:
            (steps, …, S).

        Raises:
            InputError: the shape does not fit.
        """
        window, found = self._windows(series, self.order)[-1], []
        for _ in range(steps):
            found.append(linear(window, self.weight, self.bias))
            window = delay.shifted(window, found[-1])
        return torch.stack(found) if found else series[:0]

    def extra_repr(self) -> str:
        """Order and size, for ``repr``."""
        return f"{self.order}, {self.size}"

    def _windows(self, series: Tensor, least: int) -> Tensor:
        """The K values up to each step side by side: (T − K + 1, …, K·S)."""
        if not isinstance(series, Tensor):
            raise InputError(f"a series must be a tensor, received {type(series).__name__}.")
        if series.dim() < 2 or series.shape[-1] != self.size or len(series) < least:
            raise InputError(
                f"a series must have the shape (T, …, {self.size}) with T of at least {least}, "
                f"received {tuple(series.shape)}."
            )
        return _windows(series, self.order)


class NARX(Recurrent):
    """Non-linear autoregression with external input (Lin et al., 1996).

    h = tanh(W_0 x_t + … + W_Kx x_{t−Kx} + U_1 y_{t−1} + … + U_Ky y_{t−Ky} + b)    ŷ_t = V h + b_o

    In training the y before are the true ones (teacher forcing), so that all steps are computed
    together; in prediction they are its own (free running). It is a :class:`elman.Recurrent` of
    :class:`elman.cells.NARX`: lengths, resets and ``step`` are as there.

    Args:
        input_size: M, the width of x.
        hidden_size: H, the number of units.
        output_size: O, the width of y.
        input_delays: Kx; 2 by default.
        output_delays: Ky; 2 by default.
        learn_initial_state: as in :class:`elman.Recurrent`.
        device, dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        input_delays: int = 2,
        output_delays: int = 2,
        *,
        learn_initial_state: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        cell = delay.NARX(
            input_size, hidden_size, output_size, input_delays, output_delays, device=device,
            dtype=dtype,
        )  # fmt: skip
        super().__init__(cell, learn_initial_state=learn_initial_state)

    def forward(
        self, x: Any, state: Any = None, *, targets: Tensor | None = None, **options: Any
    ) -> tuple[Any, Any]:
        """Run over whole sequences: freely, or on the true outputs.

        Args:
            x: (T, B, M).
            state: what an earlier call returned, to go on from; the start where it is None.
            targets: (T, B, O), the true outputs; without them it runs freely.
            options: those of :meth:`elman.Recurrent.forward`, where it runs freely.

        Returns:
            ``y, state``: y is (T, B, O). On true outputs, the state holds them: a call without
            targets goes on from there.

        Raises:
            InputError: a shape does not fit, or an option was given beside targets.
        """
        if targets is None:
            return super().forward(x, state, **options)
        if given := [name for name, value in options.items() if value is not None]:
            raise InputError(f"{given[0]} cannot be given beside targets: leave one of them out.")
        width = self.output_size
        for name, value in (("x", x), ("targets", targets)):
            if not isinstance(value, Tensor):
                raise InputError(f"{name} must be a tensor, received {type(value).__name__}.")
        if x.dim() != 3 or x.shape[2] != self.input_size or targets.shape != (*x.shape[:2], width):
            raise InputError(
                f"x and targets must be (T, B, {self.input_size}) and (T, B, {width}), "
                f"received {tuple(x.shape)} and {tuple(targets.shape)}."
            )
        state = self.initial_state(x.shape[1]) if state is None else state
        before = States(self._cells).split(state, x.shape[1])[0]
        check_types(self._like(), x, [(targets, *before)])
        inputs = _continued(before[1], x)
        outputs = _continued(before[2], targets)
        y, _, _ = self._cells[0].bind(self.weights(0))(x, targets, inputs[:-1], outputs[:-1])
        last = targets[-1:] if len(targets) else before[0].unsqueeze(0)
        # A state of its own: what is done to the targets afterwards is not done to it.
        return y, (last.clone(), inputs[-1:], outputs[-1:])


def _windows(series: Tensor, width: int) -> Tensor:
    """``width`` values side by side up to each step, the oldest first: (T − width + 1, …, ·)."""
    return series.unfold(0, width, 1).transpose(-1, -2).flatten(-2)


def _continued(window: Tensor, series: Tensor) -> Tensor:
    """The windows before each step of ``series`` (T, B, S), and after the last: (T + 1, B, ·)."""
    size = series.shape[-1]
    before = window.unflatten(-1, (-1, size)).movedim(-2, 0)
    return _windows(torch.cat([before, series]), window.shape[-1] // size)
