"""The command line: words to verbs and settings."""
