"""Runs a script of docs/guide/import.md and tells what its framework answers.

    import_guide.py SCRIPT ANSWERS.json

The script leaves inputs in `x` and the framework's own answers in `want`.
"""

import json
import sys
from pathlib import Path

space = {"__name__": "__main__"}
exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"), space)
x, want = space["x"], space["want"]
answers = {"shape": list(x.shape), "x": x.ravel().tolist(), "want": want.ravel().tolist(), "dtype": str(x.dtype)}
Path(sys.argv[2]).write_text(json.dumps(answers))
