"""The proof of durability: messages with known keys, processes that die, and an independent account of both.

Where to look, in the order of a run:

    plan.py       what is sent, and what its handler does with it (pure: seed → messages, seed → faults)
    producer.py   a process that sends its share of the plan, tranche by tranche
    app.py        the Celery application of the workers: handlers that write down what they see, and misbehave
    ledger.py     the account: append-only files, one per process, one line per event
    fleet.py      starts, kills, stops, continues and restarts worker processes
    backlog.py    looks into the broker from outside: what waits, what is leased
    run.py        one run from the first worker to the last dead letter
    checker.py    reads the account afterwards (account.py) and names every broken promise
    report.py     the verdict as text
    scene.py      small, exact scenarios for the seeded bugs
    bugs.py       seeded bugs, loaded into workers to prove that the checker notices

``make chaos`` runs ``python -m tests.chaos --seed 1 --messages 20000 --kills 60 --broker sqlite``.
"""
