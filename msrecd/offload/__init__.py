"""Off-load: finished files go to a store outside, which proves each by its hash."""
