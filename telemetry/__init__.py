"""What both services need to be watched: logs for programs, and OpenTelemetry's traces."""
