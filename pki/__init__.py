"""Cryptography only: certificates, tls-crypt keys and SSH host keys. Text in, text out; no files."""
