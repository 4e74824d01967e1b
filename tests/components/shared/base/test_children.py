"""Child processes: they end with the one that failed, and with the process that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from llm2llm.components.shared.base.children import run_children

FOREVER = "import sys; sys.stdin.read()"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_all_are_waited_for(tmp_path: Path) -> None:
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('done')"
    files = [tmp_path / name for name in ("a", "b", "c")]
    assert run_children([python(code, str(file)) for file in files], [dict(os.environ)] * 3) == [0, 0, 0]
    assert [file.read_text() for file in files] == ["done"] * 3
    assert run_children([python("raise SystemExit(3)")], [dict(os.environ)]) == [3]


def test_one_that_fails_ends_the_others() -> None:
    codes = run_children([python(FOREVER), python("raise SystemExit(7)")], [dict(os.environ)] * 2)
    assert codes == [None, 7]


PARENT = """
import os, sys
from llm2llm.components.shared.base.children import run_children
child = '''
import os, sys, threading
from llm2llm.components.shared.base.children import end_with_parent_pipe
end_with_parent_pipe()
os.write(int(sys.argv[1]), b"ready")
threading.Event().wait()
'''
out = int(sys.argv[1])
os.set_inheritable(out, True)
import subprocess
start = subprocess.Popen.__init__
subprocess.Popen.__init__ = lambda *given, **named: start(*given, pass_fds=(out,), **named)
run_children([[sys.executable, "-c", child, str(out)]] * 2, [dict(os.environ)] * 2)
"""


def test_children_end_with_a_parent_that_is_killed() -> None:
    """The end of the pipe that children hold is closed only when the last of them has ended."""
    reading, writing = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(writing)], pass_fds=(writing,))
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        assert pipe.read(5) == b"ready"
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        while pipe.read(5):
            pass
