"""Programs that ask as users' programs do, each with a common client and its usual settings."""
