"""One file a logger: where the numbers of metrics.jsonl go too. See `surgdino.engine.logger`."""
