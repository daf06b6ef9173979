"""Python's garbage collector, kept from holding up the event loop.

A full collection looks at every object. Modules and settings are some 70,000 of them, which live as long as the
process: to look at them takes tens of milliseconds, and finds nothing.
"""

from __future__ import annotations

import gc


def keep_for_good() -> None:
    """Collect once, and leave all that is alive now out of later collections. For a process that is a server alone."""
    gc.collect()
    gc.freeze()


def collect() -> None:
    """Collect what ended calls have left: grpc's objects of a call refer to each other. Does nothing where a collection
    would look at everything, as in a program that has a server beside other things."""
    if gc.get_freeze_count():
        gc.collect()
