"""Chat templates: Jinja in a sandbox that counts what they cost, and remembers which characters a user wrote."""
