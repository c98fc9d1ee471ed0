"""Kits: archives of files and names, without secrets, that set up a client's own machine (`sh install`)."""
