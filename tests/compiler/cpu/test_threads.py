"""Threads that wait for each other, and the scan's."""

import os
import resource
import sys
import time
from pathlib import Path

import pytest
import torch

import elman
from elman.compiler import recurrence
from elman.compiler.cpu import build, kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about threads")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_core():
    """All threads of this process on one core, as where other work has the others."""
    before = os.sched_getaffinity(0)

    def move(cores):
        for thread in map(int, os.listdir("/proc/self/task")):
            os.sched_setaffinity(thread, cores)

    yield lambda: move({min(before)})
    move(before)


def test_a_thread_that_waits_for_long_sleeps(two_threads, one_core, monkeypatch):
    monkeypatch.setattr(kernels, "team", lambda *_: 2)
    network, x = elman.RNN(3, 40), torch.randn(200, 1, 3)
    with torch.no_grad():
        y, _ = network(x)
        one_core()
        network(x)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        again, _ = network(x)
        slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    assert torch.equal(y, again)
    # Each step has meetings, at which one of two threads on a core comes late; to yield the core
    # would count as no sleep.
    assert slept >= 150


def test_a_scan_is_shared_among_threads(two_threads):
    a, b = torch.rand(400, 16, 256), torch.randn(400, 16, 256)
    first = torch.zeros(16, 256)
    recurrence.scan(a, b, first, None, recurrence.Course())
    whole, own = time.process_time(), time.thread_time()
    for _ in range(20):
        recurrence.scan(a, b, first, None, recurrence.Course())
    whole, own = time.process_time() - whole, time.thread_time() - own
    assert whole - own > 0.25 * own


def test_the_engine_has_no_pragma_that_would_be_ignored():
    # It is compiled without OpenMP, whose threads it asks for by function (runtime/pool.hpp).
    for path in Path(build.HEADERS).iterdir():
        assert "#pragma omp" not in path.read_text(encoding="utf-8"), path.name
