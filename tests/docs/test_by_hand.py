"""README's six lines for somebody without root work as they stand, but for the ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.ports import free_port

README = (Path(__file__).parents[2] / "README.md").read_text()
SHOWN = re.search(r"\\*\\*By hand, without root\\*\\*.*?```sh\n(.*?)```", README, re.DOTALL)


@pytest.mark.broker
def test_the_six_lines(tmp_path: Path) -> None:
    assert SHOWN is not None
    lines = SHOWN[1]
    assert len(lines.splitlines()) == 6
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", lines))):
        lines = lines.replace(f":{port}", f":{free_port()}")
    script = f"set -e\n{lines}\nkill %1\nwait\n"
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-m", "-c", script],
        env={**os.environ, "HOME": str(tmp_path), "PATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, said
    (row,) = [line.split() for line in said.splitlines() if line.startswith("first ")]
    assert "OPENED" in row
    assert "10" in row
