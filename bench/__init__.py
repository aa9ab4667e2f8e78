"""The benchmark: `python -m bench` measures the service beside its peers and checks every value."""
