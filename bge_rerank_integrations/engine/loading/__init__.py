"""A checkpoint → a tokenizer and scorers, on their devices and in their precision."""
