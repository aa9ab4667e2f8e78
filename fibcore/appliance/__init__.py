"""The process around it all: settings, logs, signals and ends, heartbeat, takeover history."""
