"""`python -m tpxd.demo DIR`: the daemon of a demo, which ends with the demo, whatever ended that."""

from __future__ import annotations

import sys
from pathlib import Path

from tpxd.broker.lifeline import end_with_parent
from tpxd.daemon import run

if __name__ == "__main__":
    end_with_parent()
    sys.exit(run(Path(sys.argv[1])))
