"""The engine's C++ by itself, on this machine with sanitizers and on others under an emulator.

``machines/check.cpp`` has the checks. What it cannot know, a cell's programs, is recorded here from
runs in this process and written down as C++ that runs them again.
"""

from __future__ import annotations

import math
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, sigmoid, tanh

import elman
from elman import Affine, Cell, Diagonal
from elman.compiler.cpu import build, kernels, source

CHECK = Path(__file__).parent / "machines" / "check.cpp"


class Peephole(Cell):
    """What pointwise functions, products and two stages there are in one cell."""

    state = ("h", "c")
    gates = Affine("i f g o")
    peephole = Diagonal("i f o")

    def step(self, z, h, c):
        v = self.peephole
        i, f = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c)
        c = f * c + i * tanh(z.g - z.g.mean(-1, keepdim=True))
        return sigmoid(z.o + v.o * c) * tanh(c), c


class Recording:
    """Runs of compiled programs, and the memory before and after them, as C++."""

    def __init__(self):
        self.cells: dict[str, str] = {}
        self.runs: list[str] = []
        self.original = kernels.Kernel.run

    def run(self, kernel, shape, where, states, weights, zeroed=()) -> None:
        """In place of ``Kernel.run``: the same, written down."""
        places = [where(buffer) for buffer in kernel.buffers]
        fields = ("first", "again", "history", "last", "added", "again_out")
        reals = [t for t in (*places, *weights) if isinstance(t, Tensor)]
        reals += [t for s in states for f in fields if (t := getattr(s, f)) is not None]
        # Whole storages, of which the tensors may be parts.
        storages = {t.untyped_storage().data_ptr(): whole(t) for t in reals}
        before = {key: t.clone() for key, t in storages.items()}
        self.original(kernel, shape, where, states, weights, zeroed)

        names = {key: f"m{k}" for k, key in enumerate(storages)}

        def pointer(t: Tensor | None) -> str:
            if t is None:
                return "nullptr"
            return f"{names[t.untyped_storage().data_ptr()]} + {t.storage_offset()}"

        out = []
        for key, name in names.items():
            out.append(f"static real {name}[] = {listed(before[key])};")
            out.append(f"static const real {name}_after[] = {listed(storages[key])};")
        memories = [f"{{{n}, {n}_after, {storages[key].numel()}}}" for key, n in names.items()]
        out.append(f"const Memory memories[] = {{{', '.join(memories)}}};")

        rows = []
        for k, s in enumerate(states):
            width = s.first.shape[-1]
            out.append(f"std::vector<real> present{k}({shape.batch * width});")
            rows.append(
                f"{{{pointer(s.first)}, {pointer(s.again)}, {pointer(s.history)}, "
                f"present{k}.data(), {pointer(s.last)}, {pointer(s.added)}, "
                f"{pointer(s.again_out)}, {width}, {s.history.shape[0]}, {int(s.past)}}}"
            )
        out.append(f"State states[] = {{{', '.join(rows)}}};")

        rows = []
        for k, (buffer, place) in enumerate(zip(kernel.buffers, places, strict=True)):
            width, zero = buffer.width, int(buffer in zeroed)
            if isinstance(place, Tensor):
                step, row = [0, 0, *place.stride()][-3:-1]
                rows.append(f"{{{pointer(place)}, {step}, {row}, {width}, kFixed, 0, {zero}}}")
            elif place[0] == kernels.FIXED:
                out.append(f"std::vector<real> buffer{k}({shape.batch * width});")
                rows.append(f"{{buffer{k}.data(), 0, {width}, {width}, kFixed, 0, 0}}")
            else:
                row, kind = states[place[1]].first.shape[-1], ("kBefore", "kAfter")[place[0] - 1]
                rows.append(f"{{nullptr, 0, {row}, {width}, {kind}, {place[1]}, 0}}")
        out.append(f"Buffer buffers[] = {{{', '.join(rows)}}};")

        program, cell = kernel.program, f"cell{len(self.cells) - 1}"
        name = next(n for n, p in self.compiled.programs.items() if p is program)
        products = []
        for target in kernel.products:
            matrix = weights[target.product.weight]
            matrix = matrix.t() if target.product.transposed else matrix
            ends = [kernel.number(program.resolve(b)) for b in (target.product.source, target)]
            sizes = ", ".join(map(str, (*ends, *matrix.shape)))
            strides = ", ".join(map(str, matrix.stride()))
            products.append(f"{{{sizes}, {pointer(matrix)}, {strides}, nullptr}}")
        out.append(f"Product products[] = {{{', '.join(products) or '{}'}}};")

        rows = []
        for k, function in enumerate(program.functions):
            numbers = [kernel.number(program.resolve(b)) for b, _ in function.slots]
            out.append(f"const long numbers{k}[] = {{{', '.join(map(str, numbers))}}};")
            offsets = ", ".join(str(offset) for _, offset in function.slots)
            out.append(f"const long offsets{k}[] = {{{offsets}}};")
            rows.append(
                f"{{{cell}::{name}_{k}, {function.width}, {int(bool(function.reductions))}, "
                f"{len(numbers)}, numbers{k}, offsets{k}}}"
            )
        out.append(f"const Function functions[] = {{{', '.join(rows)}}};")

        rows, first = [], [0, 0]
        for filled, applied in program.stages:
            rows.append(f"{{{first[0]}, {len(filled)}, {first[1]}, {len(applied)}}}")
            first = [first[0] + len(filled), first[1] + len(applied)]
        out.append(f"const Stage stages[] = {{{', '.join(rows)}}};")

        masks = {"resets": ("unsigned char", shape.resets), "lengths": ("long", shape.lengths)}
        for what, (kind, t) in masks.items():
            if t is not None:
                values = ", ".join(str(int(v)) for v in t.flatten().tolist())
                out.append(f"const {kind} {what}[] = {{{values}}};")
        out.append("Program p{};")
        settings = {
            "steps": shape.steps, "batch": shape.batch, "reverse": int(shape.reverse),
            "backward": int(shape.backward), "states": "states", "state_count": len(states),
            "buffers": "buffers", "buffer_count": len(kernel.buffers), "products": "products",
            "product_count": len(kernel.products),
            "functions": "functions", "stages": "stages", "stage_count": len(program.stages),
            **{what: what for what, (_, t) in masks.items() if t is not None},
            # Rows shared among threads in one run, a team on the same rows in the next.
            "threads": 2, "team": 1 + len(self.runs) % 2,
        }  # fmt: skip
        out += [f"p.{what} = {value};" for what, value in settings.items()]
        label = f"{type(self.cell).__name__} {name}, run {len(self.runs)}"
        out.append(f'replay(p, products, memories, {len(memories)}, "{label}");')
        self.runs.append("{\n" + "\n".join(out) + "\n}")

    def of(self, cell: Cell, *calls) -> None:
        """Run ``cell`` forward and backward, once for each set of options, and write it down."""
        network = elman.Recurrent(cell)
        with elman.engine("native"):
            name = f"cell{len(self.cells)}"
            text = source(cell).replace('extern "C" ', "").replace('#include "vector.hpp"', "")
            # With a namespace of its own inside of the runtime's.
            self.cells[name] = text.replace("{", f"{{ namespace {name} {{", 1) + "\n}"
            self.cell = cell
            self.compiled = compiled_of(cell)
            for steps, batch, options in calls:
                x = torch.randn(steps, batch, cell.input_size, dtype=next(cell.parameters()).dtype)
                y, state = network(x.requires_grad_(), **options)
                loss = sum((s * torch.randn_like(s)).sum() for s in (y, *state))
                loss.backward()

    @property
    def text(self) -> str:
        cells = "\n".join(self.cells.values())
        return f"{cells}\nvoid replay_all() {{\n{chr(10).join(self.runs)}\n}}\n"


def compiled_of(cell: Cell):
    from elman.engines import native

    return native.compiled(cell)


def whole(t: Tensor) -> Tensor:
    return torch.empty(0, dtype=t.dtype).set_(t.untyped_storage())


def listed(t: Tensor) -> str:
    """Numbers as C++; where nothing has been written, there may be anything."""
    return "{" + ", ".join(v.hex() if math.isfinite(v) else "0" for v in t.tolist()) + "}"


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float", "double"])
def recorded(request) -> tuple[torch.dtype, str]:
    torch.manual_seed(0)
    recording = Recording()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.Kernel, "run", lambda *given: recording.run(*given))
        masks = {"lengths": torch.tensor([4, 0, 3, 1, 2]), "resets": torch.rand(4, 5) < 0.3}
        for cell in (Peephole(3, 19), elman.cells.GRUResetBefore(2, 5)):
            recording.of(cell.to(request.param), (4, 5, masks), (2, 5, {}), (1, 1, {}), (1, 27, {}))
    return request.param, recording.text


X86 = platform.machine() == "x86_64"
MACHINES = {
    "this": [],
    "x86-64-v3": ["-march=x86-64-v3"],
    "x86-64": ["-march=x86-64"],
    "aarch64": [],
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_engine_on(machine, recorded, tmp_path):
    real, text = recorded
    (tmp_path / "recorded.inc").write_text(text)
    compiler, run, libraries = shlex.split(build.compiler()), [], [build.openmp()]
    flags = MACHINES[machine]
    if machine == "aarch64":
        compiler, run = ["aarch64-linux-gnu-g++"], ["qemu-aarch64"]
        libraries = ["-static", "-lgomp", "-lpthread"]
        if not shutil.which(compiler[0]) or not shutil.which(run[0]):
            pytest.skip("needs apt-get install g++-aarch64-linux-gnu qemu-user")
    elif machine != "this" and not X86:
        pytest.skip("a machine of another kind")
    elif machine == "this":
        flags = [
            *build.machine_flags(),
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover",
            "-O0",
        ]
    program = tmp_path / "check"
    made = subprocess.run(
        [*compiler, "-std=c++17", "-O1", "-fno-math-errno", "-ffp-contract=fast", *flags,
         f"-DELMAN_REAL={build.REALS[real]}", *build.includes(), f"-I{tmp_path}", str(CHECK),
         *libraries, "-o", str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[:2000]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [*run, str(program)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0 and " 0 wrong" in done.stdout, (done.stdout + done.stderr)[:2000]
