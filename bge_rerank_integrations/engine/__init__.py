"""The engine: texts → token ids → batches → logits. Only this folder imports torch."""
