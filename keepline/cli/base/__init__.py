"""What every command uses: errors, secrets, tokens."""
