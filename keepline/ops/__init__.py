"""What every Keepline program needs for operation: settings, logs, metrics, health and connections."""
