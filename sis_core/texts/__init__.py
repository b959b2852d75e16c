"""From tokens to texts: sessions, requests, the scheduler that runs them, and the model as people use it."""
