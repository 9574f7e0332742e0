"""The persister: the program that writes rooms to Postgres."""
