"""Where the grid's state lives."""
