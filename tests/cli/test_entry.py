"""How the command line begins and ends, whatever its output leads to and whoever interrupts it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import typer

from elman.cli import entry, interruption
from elman.cli import program as the_program

IMPORTS = "from elman.cli.interruption import importing\nwith importing():\n    import slow\n"
SAYS = "import sys\ndef run(_):\n    print('σ 床 café')\n    return 3\n"


@pytest.fixture
def program(tmp_path):
    """Makes ``python -m elman`` with another command line in it, one that takes no time."""
    package = tmp_path / "elman"
    (package / "cli").mkdir(parents=True)
    source = Path(entry.__file__).parent.parent
    for name in ("cli/entry.py", "cli/interruption.py", "__main__.py", "allocation.py"):
        shutil.copy(source / name, package / name)
    (package / "__init__.py").touch()

    def make(line: str, slow: str = "") -> str:
        (package / "cli" / "program.py").write_text(IMPORTS + line, encoding="utf-8")
        (tmp_path / "slow.py").write_text(slow, encoding="utf-8")
        return f"cd '{tmp_path}' && exec '{sys.executable}' -m elman"

    return make


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, **environment}
    for name in ("PYTHONPATH", "PYTHONUNBUFFERED"):
        env.pop(name, None)
    return subprocess.run(["sh", "-c", command], capture_output=True, env=env, check=False)


def test_the_code_is_that_of_the_command(program):
    done = shell(program(SAYS), PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.decode() == "σ 床 café\n"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("gbk", "σ 床 café"), ("latin-1", "? ? café"), ("ascii", "? ? caf?"), ("euc-jp", "σ 床 café")],
)
def test_what_an_encoding_lacks_is_replaced(program, encoding, shown):
    done = shell(program(SAYS), PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.decode(encoding) == f"{shown}\n"


def test_letters_in_a_locale_without_them(program):
    done = shell(program(SAYS), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"? ? caf?\n", b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_lead_nowhere(program, closed):
    line = (
        "import os, sys\ndef run(_):\n"
        "    print('out'); print('err', file=sys.stderr); sys.stdin.read()\n"
        # A file that is opened now must not be taken for a standard stream.
        "    return os.open('/dev/null', os.O_RDONLY) > 2\n"
    )
    done = shell(f"{program(line)} {closed}")
    assert done.returncode == 1
    assert done.stdout == (b"" if ">&-" in closed.replace("2>&-", "") else b"out\n")
    assert done.stderr == (b"" if "2>&-" in closed else b"err\n")


def test_a_reader_that_has_gone_and_a_disk_that_is_full(program):
    line = "def run(_):\n    print('a', flush=False)\n    return 0\n"
    whole = f"({program(line)}; echo $? >&2) | true"
    assert shell(whole.replace("exec ", "sleep 0.1; ")).stderr == b"0\n"
    done = shell(f"{program(line)} > /dev/full")
    assert (done.returncode, done.stderr) == (1, b"elman: No space left on device.\n")


@pytest.mark.parametrize("where", ["import", "command line", "exit"])
def test_ctrl_c_before_and_after_a_command_says_nothing(program, where):
    wait = "import sys, time\nprint('ready', flush=True)\ntime.sleep(60)\n"
    line, slow = "def run(_):\n    return 0\n", ""
    if where == "import":
        slow = wait
    elif where == "command line":
        line = wait
    else:
        late = wait.replace("\n", "; ")
        line = f"import atexit\natexit.register(lambda: exec({late!r}))\n" + line
    command = program(line, slow)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with subprocess.Popen(
        ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.read(6) == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
    # Ended by the signal: a shell says 130 of it.
    assert process.returncode == -signal.SIGINT


@pytest.fixture
def handled():
    """Ctrl-C as Python handles it, put back afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_command_that_is_interrupted_as_it_begins(handled, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(the_program, "run", interrupted)
    monkeypatch.setattr("elman.allocation.keep_freed_memory", lambda: None)
    with pytest.raises(SystemExit) as ended:
        entry.main([])
    assert ended.value.code == 130 and capsys.readouterr() == ("", "")


def test_a_command_that_is_terminated_says_so(monkeypatch, capsys):
    app, before = typer.Typer(), signal.getsignal(signal.SIGTERM)
    app.command()(lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(the_program, "_load", lambda name, row: typer.main.get_command(app))
    assert the_program.run(["cells"]) == 1
    assert capsys.readouterr() == ("", "elman: interrupted.\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_where_elman_is_a_library_ctrl_c_is_its_users(handled, monkeypatch):
    def now():
        with interruption.importing():
            return signal.getsignal(signal.SIGINT)

    for name, theirs in (("train.py", True), ("/usr/bin/elman", False)):
        monkeypatch.setattr(sys, "argv", [name])
        assert (now() is signal.default_int_handler) is theirs
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup has it
    assert now() is signal.SIG_IGN
    seen = []
    thread = threading.Thread(target=lambda: seen.append(now()))
    thread.start()
    thread.join()
    assert seen == [signal.SIG_IGN]
