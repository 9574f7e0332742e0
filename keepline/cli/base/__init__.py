"""What all commands use: errors, secrets, tokens."""
