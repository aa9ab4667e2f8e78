"""The status page, in a real browser. ``chromium`` is Debian's; Playwright steers it."""
