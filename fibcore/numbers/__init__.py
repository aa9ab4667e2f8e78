"""The number at an index: queue, worker, outline."""
