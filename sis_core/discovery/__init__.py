"""Finding plugins, and running their code so that it can harm nobody but themselves."""
