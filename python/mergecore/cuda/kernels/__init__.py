"""What arithmetic may a method call? Every operation rounds as the engine's does, in its order."""
