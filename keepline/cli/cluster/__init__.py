"""What commands read and change in a running cluster."""
