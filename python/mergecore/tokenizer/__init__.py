"""Whose tokens does the output speak, and which rows of which model are theirs?

models' files → tokens.py → union.py (the output's tokenizer) → alignment.py (a map of rows for each
model, which the engine gathers by while it reads) → files.py (what lies beside the weights).
"""
