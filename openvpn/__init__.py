"""Pure text out of typed values: what an OpenVPN host, its firewall and its clients read. No AWS, no files."""
