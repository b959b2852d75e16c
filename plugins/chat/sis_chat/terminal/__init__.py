"""``sis chat``: a person and a model in a terminal."""
