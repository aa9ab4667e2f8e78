"""The loads: a generator that records each answer, wrk, and the requests that they send."""
