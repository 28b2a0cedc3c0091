"""Many merges beside each other: sweeps, and the studies that are made of them."""
