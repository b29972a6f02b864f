"""``python -m cfqueue.cli``: the ``cfqueue`` command without its script."""

from cfqueue.cli import main

main(prog_name="cfqueue")
