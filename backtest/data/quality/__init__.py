"""What must hold of a dataset, what it covers, and what looks wrong in it."""
