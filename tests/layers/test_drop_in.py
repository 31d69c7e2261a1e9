"""A network is a module like any other to PyTorch, on the native engine, too."""

import copy
import multiprocessing
import pickle
import threading
import time
import warnings

import pytest
import torch

import elman
from elman import Affine, Cell


class OwnCell(Cell):
    state = ("h",)
    net = Affine("a b")

    def step(self, z, h):
        return torch.tanh(z.a) * torch.sigmoid(z.b) + 0.5 * h


@pytest.fixture
def network():
    torch.manual_seed(0)
    return elman.LSTM(4, 6, 2)


@pytest.fixture
def x():
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))


def test_it_runs_where_nothing_else_is_asked_for(network):
    assert network.engine == "native"
    assert elman.Recurrent(OwnCell(3, 4)).engine == "native"


def test_modes_without_gradient_give_the_same(network, x):
    y, _ = network(x)
    with torch.no_grad():
        assert torch.equal(network(x)[0], y)
    with torch.inference_mode():
        assert torch.equal(network(x)[0], y)


def test_autocast_computes_in_single_precision(network, x):
    y, _ = network(x)
    with torch.autocast("cpu"):
        low, _ = network(x)
    assert low.dtype == torch.float32
    assert torch.equal(low, y)


def test_a_state_in_the_type_of_autocast_is_taken(network, x):
    _, state = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        received, _ = network(x, tuple(s.bfloat16() for s in state))
    assert received.dtype == torch.float32
    torch.testing.assert_close(received, network(x, state)[0], rtol=0.02, atol=0.02)


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
@pytest.mark.parametrize("cell", [OwnCell, elman.cells.LSTM, elman.cells.LRU])
def test_shapes_alone_are_computed_on_the_meta_device(cell):
    network = elman.Recurrent(cell(4, 6)).to("meta")
    y, _ = network(torch.zeros(5, 2, 4, device="meta"))
    assert y.shape == (5, 2, 6)


def test_input_may_be_laid_out_in_any_way(network, x):
    y, _ = network(x)
    other = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not other.is_contiguous()
    assert torch.equal(network(other)[0], y)


def test_gradients_of_gradients():
    torch.manual_seed(0)
    for cell in (OwnCell(3, 4), elman.cells.LSTM(3, 4), elman.cells.GRU(3, 4)):
        network = elman.Recurrent(cell, 2).double()
        x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, n=network: n(x)[0], (x,))
        assert torch.autograd.gradgradcheck(lambda x, n=network: n(x)[0], (x,))


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, about itself
def test_torch_compile_passes_through(network, x):
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    y, _ = compiled(inputs[0])
    expected, _ = network(inputs[1])
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@pytest.mark.filterwarnings("ignore")
def test_torch_export_keeps_the_loop_in_one_operator(network, x):
    exported = torch.export.export(network, (x,))
    assert sum("elman.loop" in str(node.target) for node in exported.graph.nodes) == 2
    torch.testing.assert_close(exported.module()(x)[0], network(x)[0])


def test_operators_keep_to_their_schema(network, x):
    from elman.engines import native

    seen = []
    original = torch.ops.elman.loop.default
    compiled = native.compiled(network._cells[0])
    flat, parameters = compiled.hoisted.run(x.flatten(0, 1), network.weights(0))
    sequences = [s.detach().unflatten(0, (5, 3)) for s in flat]
    states = [torch.zeros(3, 6) for _ in range(2)]
    arguments = (
        native._name(network._cells[0], torch.float32, "cpu"), [], sequences,
        [p.detach() for p in parameters], states,
        [], None, None, False, True, True,
    )  # fmt: skip
    torch.library.opcheck(original, arguments, test_utils=("test_schema", "test_faketensor"))
    assert not seen


def test_several_threads_at_once(network, x):
    expected, _ = network(x)
    failures = []

    def work():
        for _ in range(20):
            if not torch.equal(network(x)[0], expected):
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def in_child(network, x, queue):
    torch.set_num_threads(1)
    network(x)[0].sum().backward()
    queue.put(network(x)[0].detach().numpy())


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes(network, x, start):
    expected = network(x)[0].detach()
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking a process that has threads
        child = context.Process(target=in_child, args=(network, x, queue))
        child.start()
    received = torch.from_numpy(queue.get(timeout=60))
    child.join()
    assert child.exitcode == 0
    assert torch.equal(received, expected)


def in_process(rank, where, part, queue):
    """One of two processes of a distributed training step."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        network = torch.nn.parallel.DistributedDataParallel(elman.Recurrent(OwnCell(4, 6), 2))
        y, h = network(part)
        (y.square().mean() + h.mean()).backward()
        if rank == 0:
            queue.put([p.grad.numpy() for p in network.parameters()])
        torch.distributed.barrier()  # neither leaves while the other still speaks to it
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without distribution")
def test_distributed_gradients_are_those_of_the_joined_batch(tmp_path):
    x = torch.randn(5, 6, 4)
    torch.manual_seed(0)
    network = elman.Recurrent(OwnCell(4, 6), 2)
    y, h = network(x)
    (y.square().mean() + h.mean()).backward()
    context = multiprocessing.get_context("spawn")
    queue, where = context.Queue(), f"file://{tmp_path / 'meeting'}"
    children = [
        context.Process(target=in_process, args=(rank, where, part.contiguous(), queue))
        for rank, part in enumerate(x.chunk(2, dim=1))
    ]
    for child in children:
        child.start()
    received = queue.get(timeout=120)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    for parameter, gradient in zip(network.parameters(), received, strict=True):
        torch.testing.assert_close(torch.from_numpy(gradient), parameter.grad)


class Encoded(torch.utils.data.Dataset):
    """What a network makes of sequences, in whichever process it is asked."""

    def __init__(self, network, x):
        self.network, self.x = network, x

    def __len__(self):
        return self.x.shape[1]

    def __getitem__(self, row):
        with torch.no_grad():
            return self.network(self.x[:, row : row + 1])[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_run_networks(network, x, start):
    expected = network(x)[0].detach()
    loader = torch.utils.data.DataLoader(
        Encoded(network, x), batch_size=3, num_workers=1, multiprocessing_context=start
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking a process that has threads
        (received,) = loader
    torch.testing.assert_close(received.squeeze(2).transpose(0, 1), expected)


def test_threads_that_bring_cells_at_the_same_moment(monkeypatch):
    from elman.compiler.cpu import kernels, target
    from elman.engines import kept

    class Slow(dict):
        """Where names are given: between counting and adding, others have their turn."""

        def __len__(self):
            found = super().__len__()
            time.sleep(0.02)
            return found

    def slowly(*given, real=kernels.Kernel):
        time.sleep(0.02)
        return real(*given)

    monkeypatch.setattr(kept, "COMPILED", Slow(kept.COMPILED))
    monkeypatch.setattr(target, "Kernel", slowly)

    class Fresh(OwnCell):
        """That no other test has compiled."""

    torch.manual_seed(0)
    networks = [elman.Recurrent(Fresh(3, 4 + k)).double() for k in range(8)]
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    networks.append(networks[0])  # the same from two threads
    meet = threading.Barrier(len(networks))
    received = {}

    def work(k):
        meet.wait()
        y, _ = networks[k](x)
        received[k] = torch.autograd.grad(y.sum(), list(networks[k].parameters()))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(networks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(received) == len(networks)
    for k, network in enumerate(networks):
        assert network.engine == "native"
        with elman.engine("reference"):
            y, _ = network(x)
        expected = torch.autograd.grad(y.sum(), list(network.parameters()))
        torch.testing.assert_close(received[k], expected)


def test_copies_and_pickles(network, x):
    y, _ = network(x)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x)[0], y)


def test_source_can_be_read():
    from elman.compiler.cpu import source

    text = source(OwnCell(3, 4))
    assert "tanh" in text and "forward_0" in text
    # Neither the sizes of the network nor of the batch are in it.
    assert source(OwnCell(30, 40)) == text


class Asking(Cell):
    state = ("h",)
    net = Affine()

    def step(self, z, h):
        return torch.tanh(z) if float(h.sum().detach()) >= 0 else z


class Drawing(Cell):
    state = ("h",)
    net = Affine()

    def step(self, z, h):
        return torch.tanh(z) * torch.rand_like(h)


class Changing(Cell):
    state = ("h",)
    net = Affine()

    def step(self, z, h):
        z = torch.tanh(z)
        z[..., :2].mul_(0.5)
        return z


@pytest.mark.parametrize(
    ("cell", "why"),
    [(Asking, "value of the data"), (Drawing, "random"), (Changing, "place")],
)
def test_what_it_cannot_do_it_says_once(cell, why, x):
    network = elman.Recurrent(cell(4, 6))
    with pytest.warns(elman.EngineWarning, match=why):
        y, _ = network(x)
    assert y.shape == (5, 3, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(x)
    with elman.engine("native"), pytest.raises(elman.InputError, match=why):
        network(x)


def test_memory_that_the_step_hides_is_refused(x):
    hidden = torch.ones(6)

    class Hiding(Cell):
        state = ("h",)
        net = Affine()

        def step(self, z, h):
            return torch.tanh(z * hidden)

    with pytest.warns(elman.EngineWarning, match="none of its declared weights.*Constant"):
        elman.Recurrent(Hiding(4, 6))(x)


def test_empty_batches_and_sequences(network):
    assert network(torch.randn(0, 3, 4))[0].shape == (0, 3, 6)
    assert network(torch.randn(5, 0, 4))[0].shape == (5, 0, 6)


def test_outputs_changed_in_place_wherever_saved_values_go(network, x):
    """What is saved may be moved, dropped, or read twice; the gradient is that of y as it was."""
    weights = list(network.parameters())

    def loss(y):
        return torch.relu_(y).square().sum()

    expected = torch.autograd.grad(torch.relu(network(x)[0]).square().sum(), weights)
    with torch.autograd.graph.save_on_cpu():
        y, _ = network(x)
    moved = torch.autograd.grad(loss(y), weights)
    y = torch.utils.checkpoint.checkpoint(lambda x: network(x)[0], x, use_reentrant=False)
    dropped = torch.autograd.grad(loss(y), weights)
    once = loss(network(x)[0])
    torch.autograd.grad(once, weights, retain_graph=True)
    again = torch.autograd.grad(once, weights)
    twice = torch.autograd.grad(loss(network(x)[0]), weights, create_graph=True)
    for found in (moved, dropped, again, twice):
        torch.testing.assert_close(found, expected)


def test_what_counts_changes_holds_no_memory(network, x):
    y, _ = network(x)
    node = y.grad_fn
    while not hasattr(node, "counter"):
        node = node.next_functions[0][0]
    assert node.counter.untyped_storage().nbytes() == 0


@pytest.mark.filterwarnings("ignore")
def test_steps_are_seen_by_modes(network, x):
    """The fast path writes into memory that no mode sees: fakes would be read as numbers."""
    from torch._subclasses import FakeTensorMode

    state = network.initial_state(3)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y, _ = network.step(mode.from_tensor(x[0]), state)
    assert type(y).__name__ == "FakeTensor"
