"""The endpoints: the table, a module for each row, and the page."""
