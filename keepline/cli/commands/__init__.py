"""The commands, as declared to typer."""
