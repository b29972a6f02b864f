"""Benchmarks beside their peers: `python -m benchmarks --help`. Goals are ratios within one run.

`model.py` says what a case is, `running.py` how its sides are run (fresh processes, interleaved,
incomplete runs rejected), `results.py` how they are kept and shown. Each other module is a case.
"""
