"""What runs on a client's own machine, outside of AWS: an archive of names and files, no secrets, for `sh install`."""
