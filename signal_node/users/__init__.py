"""Authentication, and which session holds a user."""
