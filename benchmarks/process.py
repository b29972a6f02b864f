"""The process of one run: ``python -m benchmarks.process module:function PARAMETERS FOLDER ANSWER``."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from benchmarks.model import Sample


def main(run: str, parameters: str, folder: str, answer: str) -> None:
    module, _, function = run.partition(":")
    try:
        sample = getattr(importlib.import_module(module), function)(Path(folder), **json.loads(parameters))
    except Exception as error:
        traceback.print_exc()
        sample = Sample(0, 0, trouble=f"{type(error).__name__}: {error}"[:300])
    Path(answer).write_text(json.dumps(asdict(sample)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
