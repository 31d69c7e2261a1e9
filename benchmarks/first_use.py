"""Seconds that the first training step of a cell takes in a new process, its kernels in the cache.

    python benchmarks/first_use.py [--functions softplus,hardsigmoid]

Each function stands in a cell of its own and is used on the state. A process imports torch and
elman, and then runs the cell forward and backward; that is measured, once to fill the cache and
then again. Printed: processor time, which other work on the machine hardly changes, the time on the
clock, how many modules were imported meanwhile, and the clock's time of the comparison with the
reference engine, in the first run and in the second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

FUNCTIONS = {
    "tanh": "torch.tanh(v)",
    "softplus": "F.softplus(v)",
    "hardsigmoid": "F.hardsigmoid(v)",
    "hardswish": "F.hardswish(v)",
    "hardtanh": "F.hardtanh(v)",
    "relu6": "F.relu6(v)",
    "gelu": "F.gelu(v)",
    "silu": "F.silu(v)",
    "elu": "F.elu(v)",
    "selu": "F.selu(v)",
    "celu": "F.celu(v)",
    "mish": "F.mish(v)",
    "leaky_relu": "F.leaky_relu(v)",
    "logsigmoid": "F.logsigmoid(v)",
    "softsign": "F.softsign(v)",
    "softshrink": "F.softshrink(v)",
    "glu": "F.glu(torch.cat([v, h], -1))",
    "layer_norm": "F.layer_norm(v, v.shape[-1:])",
    "softmax": "torch.softmax(v, -1)",
    "log_softmax": "torch.log_softmax(v, -1)",
    "logsumexp": "torch.logsumexp(v, -1, keepdim=True)",
    "lerp": "torch.lerp(h, torch.tanh(z), torch.sigmoid(v))",
    "var": "torch.var(v, -1, keepdim=True)",
    "std": "torch.std(v, -1, keepdim=True)",
    "norm": "F.normalize(v, dim=-1)",
    "logaddexp": "torch.logaddexp(z, h)",
    "hypot": "torch.hypot(z, h)",
    "rsqrt": "torch.rsqrt(1 + v * v)",
    "clamp": "torch.clamp(v, -0.5, 0.5)",
    "addcdiv": "torch.addcdiv(z, h, 1 + v * v)",
    "roll": "torch.roll(v, 1, -1)",
    "cumsum": "torch.cumsum(v, -1)",  # has no kernel: the reference engine takes over
}
"""Python expressions of z (W x + U h), of h and of v = z + h."""

PROGRAM = """
import json, sys, time, warnings
import torch, torch.nn.functional as F, elman

class One(elman.Cell):
    net = elman.Affine()
    def step(self, z, h):
        v = z + h
        return 0.5 * ({function}) + 0.1 * h

from elman.engines import native
compared, check, is_marked = [0.0], native.check, native.cache.is_marked
def timed(*arguments):
    start = time.perf_counter()
    check(*arguments)
    compared[0] += time.perf_counter() - start
native.check = timed
native.cache.is_marked = lambda mark: not {fresh} and is_marked(mark)
modules = set(sys.modules)
clock, processor = time.perf_counter(), time.process_time()
network = elman.Recurrent(One(3, 4))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    y, _ = network(torch.randn(5, 2, 3))
    y.sum().backward()
print(json.dumps([
    time.process_time() - processor, time.perf_counter() - clock, len(set(sys.modules) - modules),
    network.engine, compared[0],
]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", default=",".join(FUNCTIONS))
    names = parser.parse_args().functions.split(",")
    print("| function | processor s | clock s | modules | engine | compared s | again |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        *_, compared = first_step(name, fresh=True)
        processor, clock, modules, engine, again = first_step(name)
        print(
            f"| {name} | {processor:.3f} | {clock:.3f} | {modules} | {engine} | {compared:.3f} | "
            f"{again:.3f} |",
            flush=True,
        )


def first_step(name: str, *, fresh: bool = False) -> tuple[float, float, int, str, float]:
    """What a process of its own measures; ``fresh``: as if it had never been compared."""
    program = PROGRAM.replace("{function}", FUNCTIONS[name]).replace("{fresh}", str(fresh))
    figures: tuple[float, float, int, str, float] = json.loads(output(program))
    return figures


def output(program: str) -> str:
    """What a Python program prints."""
    return subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout


if __name__ == "__main__":
    main()
