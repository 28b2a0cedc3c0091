"""What is known of models before they are merged: how they lie to their base and to each other."""
