"""What a text leaves behind: pages, and what they hold."""
