"""What is read off the runs of Hitit et al.? `page.py` puts it together."""
