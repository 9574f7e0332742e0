"""How the parts of a node are put together: each is whole when it is made, of those that were made before."""
