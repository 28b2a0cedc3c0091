"""Did the merge get better, or did it collapse?

prompts → generate → responses → reward, judge, tasks → tally. Each stage reads one file and writes
one, and can be run alone.
"""
