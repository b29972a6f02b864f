"""``python -m cfqueue`` is the ``cfqueue`` command."""

from cfqueue.cli import main

main(prog_name="cfqueue")
