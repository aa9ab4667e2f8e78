"""The loads: a generator that records each answer, wrk, and what they are made to ask."""
