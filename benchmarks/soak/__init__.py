"""All loads together for a long time: what grows, and whether every count agrees."""
