"""Models as graphs of tensor operators, for programs without ehrmeta."""
