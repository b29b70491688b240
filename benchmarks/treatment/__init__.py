"""Effects of treatments and doses."""
