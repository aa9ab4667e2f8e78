"""HTTP, which knows of endpoints only that a table has them."""
