"""The Fibonacci sequence, exact at any index, and its durable, group-committed stepping.

``Sequence`` is the core and stands alone; ``fibcore.stores`` keeps an index on disk;
``fibcore.stepper`` joins the two.
"""

from fibcore._sequence import MAX_EXACT_INDEX, MAX_INDEX, Sequence, Snapshot

__all__ = ["MAX_EXACT_INDEX", "MAX_INDEX", "Sequence", "Snapshot"]
