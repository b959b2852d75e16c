"""One endpoint over several servers, each on a machine of its own."""
