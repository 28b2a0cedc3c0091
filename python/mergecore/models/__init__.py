"""Models: where they are, what they descend from, what is in them."""
