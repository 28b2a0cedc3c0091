"""What is read off the runs of Qing et al.? `page.py` puts it together."""
