#!/bin/sh
# What the image runs. Arguments are options of `bge-rerank serve`; BGE_RERANK_… variables are read
# as ever, and the API keys from BGE_RERANK_API_KEY_FILE or BGE_RERANK_API_KEY.
set -eu
exec bge-rerank serve \
    --host "${BGE_RERANK_HOST:-0.0.0.0}" \
    --port "${BGE_RERANK_PORT:-8787}" \
    --log-format "${BGE_RERANK_LOG_FORMAT:-json}" \
    "$@"
