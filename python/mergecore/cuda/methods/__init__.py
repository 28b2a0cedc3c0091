"""The merge methods that torch tensors are merged by: one file each, as in the engine."""
