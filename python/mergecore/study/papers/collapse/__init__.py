"""What is read off the runs of Cao et al.? `page.py` puts it together."""
