"""The run folder: configuration, data record, results, leak guard."""
