"""Any cell over time: stacked, in both directions, over padded batches, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman import nested
from elman.cells.changes import follow
from elman.cells.checks import check_made, check_weights
from elman.cells.constants import in_precision
from elman.cells.contract import Cell
from elman.cells.sizes import positive
from elman.compiler.modes import is_recorded
from elman.engines import choice, native, pytorch
from elman.engines.call import Call
from elman.errors import InputError
from elman.layers import links, stepping, weights
from elman.layers.arguments import check_arguments, one_of
from elman.layers.dropout import between_layers
from elman.layers.recording import is_symbol, leaf, recording, refuse_script
from elman.layers.sequences import Sequences, check_types
from elman.layers.states import States


class Recurrent(nn.Module):
    """A recurrent network of any cell.

    Layer l computes h_t^(l) = step(x_t^(l), h_{t−1}^(l)) with x_t^(1) the input and, for l > 1,
    x_t^(l) = h_t^(l−1). In both directions, h_t is the forward and the backward output side by
    side. With ``skip="residual"`` a layer's output is x + F(x); with ``skip="highway"`` it is
    T ⊙ F(x) + (1 − T) ⊙ x, T = σ(W_T x + b_T) (Srivastava et al., 2015). Layers whose input and
    output differ in width, as the first mostly does, have no such link.

    Every cell's weights are named as in ``torch.nn``: ``weight_ih_l0``, ``weight_hh_l1_reverse``.

    Args:
        cell: the cell of the first layer. The deeper layers are made like it. An option that is
            set on it later is set in every layer; on one of :attr:`cells`, in that one.
        layers: how many layers.
        bidirectional: also run from the end to the start, with a cell of its own.
        batch_first: batches are (B, T, …) in place of (T, B, …). States are not affected.
        dropout: probability to drop an output between two layers, while training.
        variational: drop the same units at every step of a sequence (Gal & Ghahramani, 2016).
        weight_drop: probability to drop an entry of the matrices that multiply a state, while
            training (Merity et al., 2018); see :func:`elman.layers.weights.dropped`.
        hidden_sizes: the width of each layer, in place of ``layers`` equal ones.
        skip: ``None``, ``"residual"`` or ``"highway"``.
        learn_initial_state: the state that sequences start from is learned; otherwise it is zero.
        forget_bias: what the bias of the blocks called ``f`` starts at.
        return_states: ``"last"``, or ``"all"`` for the states of every step.

    Raises:
        InputError: an argument has a value that cannot be used.
    """

    fixed: ClassVar[frozenset[str]] = frozenset(
        {"input_size", "hidden_size", "output_size", "num_layers", "num_directions"}
        | {"bidirectional", "skip", "learn_initial_state"}
    )
    """Attributes that say how the network was made."""

    def __init__(
        self,
        cell: Cell,
        layers: int = 1,
        *,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        weight_drop: float = 0.0,
        hidden_sizes: Sequence[int] | None = None,
        skip: str | None = None,
        learn_initial_state: bool = False,
        forget_bias: float | None = None,
        return_states: str = "last",
    ):
        super().__init__()
        if not isinstance(cell, Cell):
            raise InputError(
                f"cell must be a cell, such as elman.cells.LSTM(28, 256), received {cell!r}."
            )
        check_made(cell)
        layers = positive("the number of layers", layers)
        check_arguments(
            {"dropout": dropout, "weight_drop": weight_drop}, hidden_sizes, skip, return_states
        )
        if weight_drop:
            weights.check_state_matrices(cell)
        sizes = list(hidden_sizes) if hidden_sizes is not None else [cell.hidden_size] * layers
        self.input_size, self.hidden_size, self.num_layers = cell.input_size, sizes[-1], len(sizes)
        self.bidirectional, self.batch_first = bidirectional, batch_first
        self.dropout, self.variational, self.skip = float(dropout), variational, skip
        self.weight_drop = float(weight_drop)
        self.learn_initial_state, self.return_states = learn_initial_state, return_states
        self.forget_bias = forget_bias
        self.num_directions = 2 if bidirectional else 1
        self._cells: list[Cell] = []
        self._linked: list[bool] = []  # whether a layer has a link past it
        self._noiseless: list[Cell] = []  # as they are evaluated: without noise
        self._weight_names: list[dict[str, str]] = []
        width = cell.input_size
        for layer, size in enumerate(sizes):
            for direction in range(self.num_directions):
                given = layer == direction == 0 and size == cell.hidden_size
                made = cell if given else cell.resized(width, size)
                follow(cell, *self._add(made))
            output = self._cells[-1].state_sizes[0] * self.num_directions
            self._linked.append(skip is not None and width == output)
            if skip == "highway" and width == output:
                name = self._free(f"weight_highway_l{layer}", self._cells[-1])
                links.add_highway(self, layer, width, name)
            width = output
        self.output_size = width

    def _add(self, cell: Cell) -> list[Cell]:
        if self.forget_bias is not None:
            cell.fill_bias("f", self.forget_bias)
        end = self._suffix(len(self._cells))
        check_weights(cell)
        read = (*cell.weight_shapes(), *cell._buffers)
        self._weight_names.append({name: name + end for name in read})
        for name, parameter in cell.named_parameters():
            self.register_parameter(self._free(name + end, cell), parameter)
        for name, constant in cell.named_buffers():
            self.register_buffer(self._free(name + end, cell), constant)
        if self.learn_initial_state:
            for name, size in zip(cell.state, cell.state_sizes, strict=True):
                like = next(cell.parameters())
                self.register_parameter(
                    self._free(f"initial_{name}{end}", cell),
                    nn.Parameter(torch.zeros(size, device=like.device, dtype=like.dtype)),
                )
        own = cell.bind({})
        own.train(self.training)
        self._cells.append(own)
        self._noiseless.append(
            own if cell.without_noise() is cell else cell.without_noise().bind({})
        )
        self._introduce(-1)
        return [own, self._noiseless[-1]]

    def _introduce(self, k: int) -> None:
        """The k-th cell as training and as evaluation have it, to each other and to compilers."""
        own, noiseless = self._cells[k], self._noiseless[k]
        native.tagged(own)
        if noiseless is not own:
            native.tagged(noiseless)
            vars(noiseless)["training"] = own.training
            follow(own, noiseless)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the mode also for the cells.

        Raises:
            InputError: the network was made with another value and cannot change any more.
        """
        if name in self.fixed and vars(self).get(name, value) != value:
            raise InputError(
                f"{name} is decided when a network is made: this {type(self).__name__} has "
                f"{vars(self)[name]!r}, received {value!r}; make a new one."
            )
        super().__setattr__(name, value)
        if name == "training":
            for cell in (*vars(self).get("_cells", ()), *vars(self).get("_noiseless", ())):
                cell.train(value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As copies and unpickled networks begin."""
        super().__setstate__(state)
        for k in range(len(self._cells)):
            self._introduce(k)

    def _free(self, name: str, cell: Cell) -> str:
        """``name``, if nothing of this network has it yet: nothing takes another's place."""
        if hasattr(self, name):
            raise InputError(
                f"the network has two weights called {name}, one of them {type(cell).__name__}'s: "
                "rename what the cell declares."
            )
        return name

    # -- running ------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Any = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
        return_states: str | None = None,
    ) -> tuple[Any, Any]:
        """Run over whole sequences.

        Args:
            x: (T, B, M); (B, T, M) with ``batch_first``; (T, M) for one sequence without a
                batch; or a PackedSequence.
            state: what an earlier call returned, to go on from; the start where it is None. One
                tensor (layers · directions, B, S) for a cell with one state, a tuple of them for
                more; with layers of different widths, a tuple over layers in place of each.
            lengths: the length of each sequence (B); steps past it change nothing and give zeros.
            resets: (T, B) bool, or (B, T) with ``batch_first``: true where the state goes back
                to its start before that step is read.
            return_states: overrides the constructor's.

        Returns:
            ``y, state``: y is (T, B, S · directions), laid out (and packed) as x was; ``state``
            is that after each sequence's last step, or with ``"all"`` that after every step, with
            the time as its first axis: (T, layers · directions, B, S).

        Raises:
            InputError: a shape, a type or a length does not fit.
        """
        if is_symbol(x):
            options = {"lengths": lengths, "resets": resets, "return_states": return_states}
            return leaf(self, x, state, options)
        if is_recorded():
            with recording([*self._cells, *self._noiseless], self._like()):
                return self._run(x, state, lengths, resets, return_states)
        return self._run(x, state, lengths, resets, return_states)

    def _run(
        self, x: Any, state: Any, lengths: Any, resets: Any, return_states: Any
    ) -> tuple[Any, Any]:
        which = one_of("return_states", return_states or self.return_states, ("last", "all"))
        every = which == "all"
        batch = Sequences.of(x, lengths, resets, self.input_size, self.batch_first)
        if torch.compiler.is_compiling():
            like = next(self.parameters())
            native.know_all([*self._cells, *self._noiseless], like.dtype, like.device.type)
        # Where nothing goes back to its start, there is no need of one.
        anew = state is None or batch.resets is not None
        start = self._start(batch.size) if anew else self._before(state, batch)
        before = start if state is None else self._before(state, batch)
        check_types(self._like(), batch.x, () if state is None else before)
        if self._runs_in_one_call(batch, every):
            every_used = [
                weights.dropped(cell, self.weights(k), self.weight_drop, self.training)
                for k, cell in enumerate(self._noiseless)
            ]
            y, final = pytorch.run_stack(
                self._noiseless, every_used, batch.x, before, batch.lengths, self.bidirectional
            )
            return batch.out(y), batch.state_out(final[0] if len(final) == 1 else tuple(final))
        y, finals, histories = batch.x, [], []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.num_directions):
                k = layer * self.num_directions + direction
                cell, noise = self._noiseless[k], None
                if self.training and self._cells[k].noise_size:
                    cell, noise = self._cells[k], self._cells[k].noise(y.detach())
                call = Call(
                    y, before[k], start[k], direction == 1, batch.lengths, batch.resets, every,
                    noise,
                )  # fmt: skip
                used = weights.dropped(cell, self.weights(k), self.weight_drop, self.training)
                result = choice.run(cell, used, call)
                outputs.append(result.y)
                finals.append(result.state)
                histories.append(result.states)
            y = links.join(
                self, layer, y, outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            )
            if layer + 1 < self.num_layers:
                y = between_layers(y, self.dropout, self.variational, self.training)
        new = self._states.join(histories if every else finals)
        return batch.out(y), batch.state_out(new)

    def _runs_in_one_call(self, batch: Sequences, every: bool) -> bool:
        """Whether nothing stands between the layers, and PyTorch's kernels take all at once."""
        between = self.skip or (self.training and self.dropout and self.num_layers > 1)
        wanted = choice.forced()
        return (
            not (between or every or batch.resets is not None)
            and (wanted == "torch" or (wanted is None and pytorch.is_faster(batch.x)))
            and pytorch.takes_stack(self._noiseless, batch.x)
        )

    def step(
        self, x: Tensor, state: Any = None, *, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step of a stream, in constant memory: the same numbers as :meth:`forward`.

        Zoneout, recurrent dropout and weight drop act as in evaluation. Where no gradient is
        wanted, all layers run in one call of the native engine, or on a GPU in one CUDA graph from
        the second step of the same shapes on; the weights are read where they lie.

        Args:
            x: (B, M), or (M) for one stream.
            state: what the last step returned, or None to start.
            resets: (B) bool, or () for one stream: true where a row goes back to its start before
                x is read; a stream whose episode has ended goes on with the next one.

        Returns:
            ``y, state``: y is (B, S), or (S) for one stream.

        Raises:
            InputError: the network is bidirectional, or a shape or a type does not fit.
        """
        return stepping.step(self, x, state, resets)

    def initial_state(self, batch: int | None = None) -> Any:
        """The state that ``batch`` sequences start from, or one sequence without a batch."""
        if batch is None:
            return nested.map(lambda s: s.squeeze(-2), self.initial_state(1))
        return self._states.join(self._start(batch))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights anew, as the constructor does: after the same seed, the same numbers.

        Raises:
            InputError: a weight is computed from others, and it cannot be told from which values.
        """
        for k, cell in enumerate(self._cells):
            weights.redraw(self, cell, self.weight_names(k), self.forget_bias)
            layer, direction = divmod(k, self.num_directions)
            if direction == self.num_directions - 1:
                links.redraw(self, layer)
        if self.learn_initial_state:
            for start in (s for layer in self._start(1) for s in layer):
                start.zero_()

    # -- looking ------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """The name of the engine that runs this network where nothing stands in its way."""
        like = next(self.parameters())
        return choice.usual(self._cells[0], like.dtype, like.device.type)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells with their present weights, by layer, in each layer by direction.

        An option that is set on one of them is set on the network's.
        """
        bound = tuple(cell.bind(self.weights(k)) for k, cell in enumerate(self._cells))
        if not torch.compiler.is_compiling():
            for cell, own in zip(bound, self._cells, strict=True):
                follow(cell, own)
        return bound

    def weights(self, k: int) -> dict[str, Tensor]:
        """The weights and constants of the k-th cell, by the cell's own names."""
        return {name: getattr(self, own) for name, own in self.weight_names(k).items()}

    def weight_names(self, k: int) -> dict[str, str]:
        """This network's names for the weights and constants of the k-th cell."""
        return self._weight_names[k]

    def __prepare_scriptable__(self) -> Any:
        """Say why there is nothing to give ``torch.jit.script`` in place of this network."""
        refuse_script(self, "run it as it is")

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """As any module, but constants are made anew in another precision."""
        held = [k for k, cell in enumerate(self._cells) if cell._buffers]
        before = {k: self._cells[k].bind(self.weights(k)) for k in held}
        super()._apply(fn, recurse)
        for k, cell in before.items():
            for name, exact in in_precision(cell, self.weights(k)).items():
                self._buffers[self.weight_names(k)[name]] = exact
        return self

    def flatten_parameters(self) -> None:
        """Do nothing: here so that code written for ``torch.nn`` runs."""

    def extra_repr(self) -> str:
        """Cell, sizes and engine, for ``repr``."""
        sizes = [c.hidden_size for c in self._cells[:: self.num_directions]]
        cell = type(self._cells[0]).__name__
        flags = ("bidirectional", "batch_first", "learn_initial_state")
        said = [f"{cell} {self.input_size} → {sizes}", *(n for n in flags if getattr(self, n))]
        said += [f"{n}={v!r}" for n in ("dropout", "skip") if (v := getattr(self, n))]
        return ", ".join([*said, f"engine={self.engine!r}"])

    # -- inside -------------------------------------------------------------------------------

    @property
    def _states(self) -> States:
        return States(self._cells)

    def _like(self) -> Tensor:
        """A weight: of whose type and device the input should be."""
        return next(iter(self.weights(0).values()))

    def _suffix(self, k: int) -> str:
        layer, direction = divmod(k, self.num_directions)
        return f"_l{layer}" + ("_reverse" if direction else "")

    def _start(self, batch: int) -> list[tuple[Tensor, ...]]:
        like = self._like()
        return [
            tuple(
                getattr(self, f"initial_{name}{self._suffix(k)}").expand(batch, size)
                if self.learn_initial_state
                else like.new_zeros(batch, size)
                for name, size in zip(cell.state, cell.state_sizes, strict=True)
            )
            for k, cell in enumerate(self._cells)
        ]

    def _before(self, state: Any, batch: Sequences) -> list[tuple[Tensor, ...]]:
        return self._states.split(state, batch.size if batch.batched else None)
