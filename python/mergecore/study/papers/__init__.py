"""Each study: its experiments as data, NAME.yml, and what is read off its results, NAME.py."""
