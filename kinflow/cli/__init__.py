"""Commands: argument parsing, progress and exit codes; no logic."""
