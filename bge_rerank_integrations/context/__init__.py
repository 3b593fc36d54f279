"""From scores to context: which sentences of a document matter, and documents without the others.

Nothing in here imports torch.
"""
