"""Built and installed as by anybody: ``make test-install``."""
