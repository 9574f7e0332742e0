"""What every Keepline program needs to be operated: settings, logs, metrics, health and connections."""
