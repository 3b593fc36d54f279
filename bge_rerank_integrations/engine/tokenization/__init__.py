"""Texts of pairs → token ids, as the models were trained to read them."""
