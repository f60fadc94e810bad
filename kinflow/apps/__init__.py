"""What each command does, for a caller in Python as well."""
