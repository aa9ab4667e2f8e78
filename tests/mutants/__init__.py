"""Mutation testing: each small change to the code must make a test fail. See ``__main__``."""
