"""Programs with a common client library each, in its usual configuration."""
