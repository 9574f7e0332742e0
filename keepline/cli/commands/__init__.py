"""The commands as typer knows them."""
