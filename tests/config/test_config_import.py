"""Importing the configuration is cheap and pulls in nothing that it has no right to."""

import subprocess
import sys

FORBIDDEN = ["celery", "kombu", "sqlalchemy", "flask", "json5", "tomllib", "difflib", "cfqueue.messages"]

# A package without its front door, which loads more than this room needs.
CODE = f"""
import importlib.util, sys, types
package = types.ModuleType("cfqueue")
package.__path__ = importlib.util.find_spec("cfqueue").submodule_search_locations
sys.modules["cfqueue"] = package
import cfqueue.config
print([name for name in {FORBIDDEN} if name in sys.modules])
"""


def test_importing_the_configuration_loads_no_parser_and_no_broker() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
