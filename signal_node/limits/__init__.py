"""What one IP address may do."""
