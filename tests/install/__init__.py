"""Building and installing as users do: ``make test-install``."""
