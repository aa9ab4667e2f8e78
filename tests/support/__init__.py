"""Helpers of the tests: servers, engines, clients, fakes, and what a test requires. No tests."""
