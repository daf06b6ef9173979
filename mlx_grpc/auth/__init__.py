"""Who may call, and over what: tokens and certificates from files, and which addresses may be served how.

The files are read again when they change, so that a token is revoked and a certificate renewed without a restart.
"""
