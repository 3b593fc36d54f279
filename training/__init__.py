"""How the built-in English reranker was made: data, training, calibration, evaluation."""
