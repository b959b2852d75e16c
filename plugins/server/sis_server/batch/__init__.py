"""``sis batch``: a file of requests to a file of answers, by OpenAI's batch lines, without a server."""
